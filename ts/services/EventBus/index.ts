/** Entry point of `@bluefly/ossa/services/EventBus`. */
export * from '../../index';
