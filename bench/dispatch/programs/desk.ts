/** Where a gateway's results wait for whom they are for, or he for them. */
export interface Desk {
  /** Before the job can have a result. */
  expect(id: string): void;
  put(id: string, result: string): void;
  /** Each once. @throws when nothing was expected under that id. */
  take(id: string): Promise<string>;
}

export function createDesk(): Desk {
  const expected = new Map<string, PromiseWithResolvers<string>>();
  return {
    expect: (id) => void expected.set(id, Promise.withResolvers()),
    put: (id, result) => expected.get(id)?.resolve(result),
    async take(id) {
      const waiting = expected.get(id);
      if (waiting === undefined) throw new Error(`there is no job ${id}`);
      const result = await waiting.promise;
      expected.delete(id);
      return result;
    },
  };
}
