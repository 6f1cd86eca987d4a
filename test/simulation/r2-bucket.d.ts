/** durable-objects/bindings.ts names R2's type; no object of the simulation has one. */
declare type R2Bucket = never;
