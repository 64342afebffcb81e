/** The chart library; the build copies its module here. */
export { default } from 'uplot';
