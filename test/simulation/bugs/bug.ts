import type { Machines } from "../machines.ts";

/** Something wrong that the simulation must find: what the product would be with it. */
export interface Bug {
  readonly name: string;
  /** In a user's words. */
  readonly about: string;
  readonly plant: (product: Machines) => Machines;
}

type LeaseMachine = Machines["lease"];

export function inLease(product: Machines, change: (lease: LeaseMachine) => Partial<LeaseMachine>): Machines {
  return { ...product, lease: { ...product.lease, ...change(product.lease) } };
}

export function inNode(
  product: Machines,
  change: (step: Machines["node"]["step"]) => Machines["node"]["step"],
): Machines {
  return { ...product, node: { step: change(product.node.step) } };
}

export function inOrders(
  product: Machines,
  change: (step: Machines["account"]["stepOrder"]) => Machines["account"]["stepOrder"],
): Machines {
  const { account } = product;
  return { ...product, account: { ...account, stepOrder: change(account.stepOrder) } };
}

export function inShell(product: Machines, change: Partial<Machines["shell"]>): Machines {
  return { ...product, shell: { ...product.shell, ...change } };
}
