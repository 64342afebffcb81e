/** Entry point of `@bluefly/ossa/services/ServiceRegistry`. */
export * from '../../index';
