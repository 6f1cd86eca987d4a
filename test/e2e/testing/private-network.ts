import { execFileSync, spawn } from "node:child_process";
import { connect, createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";

/** A network of two: this machine, and a namespace whose only way out is to this machine. */
export interface PrivateNetwork {
  /** This machine's address on it. */
  readonly outside: string;
  /** The namespace's own. */
  readonly inside: string;
  /** Put before a command to run it in the namespace. */
  readonly within: readonly string[];
  /** From now on the namespace takes no connection and no datagram that it did not ask for. */
  shut(): void;
  /** A URL on {@link outside} that leads to `url` on this machine. */
  forward(url: string): Promise<string>;
  /** Listens in the namespace until it is called off. */
  listenInside(): Promise<{ readonly port: number; stop(): Promise<void> }>;
  remove(): Promise<void>;
}

const ip = (...args: string[]) => execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });

/** Whether this process may make namespaces, and has the tools. */
export function canMakeNetworks(): boolean {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false;
  try {
    for (const tool of ["ip", "iptables"]) execFileSync(tool, ["-V"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Needs root. `loopback` stays down in there: what runs in it can reach nobody but {@link PrivateNetwork.outside}. */
export function makePrivateNetwork(): PrivateNetwork {
  const id = process.pid.toString(36);
  const name = `gpux-${id}`;
  const [near, far] = [`gpux${id}a`, `gpux${id}b`];
  // A network of four addresses in a private range (RFC 1918), by our number so that two runs do not meet.
  const net = `10.213.${(process.pid >> 6) & 255}`;
  const first = (process.pid & 63) * 4;
  const [outside, inside] = [`${net}.${first + 1}`, `${net}.${first + 2}`];
  const within = ["ip", "netns", "exec", name];
  const open: (Server | Socket)[] = [];
  let made = false;
  try {
    ip("netns", "add", name);
    made = true;
    ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name);
    ip("address", "add", `${outside}/30`, "dev", near);
    ip("link", "set", near, "up");
    ip("-n", name, "address", "add", `${inside}/30`, "dev", far);
    ip("-n", name, "link", "set", far, "up");
  } catch (error) {
    if (made) ip("netns", "delete", name);
    throw error;
  }

  const firewall = (...args: string[]) => {
    const [command = "ip", ...rest] = [...within, "iptables", ...args];
    execFileSync(command, rest);
  };
  return {
    outside,
    inside,
    within,
    shut() {
      firewall("-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT");
      firewall("-P", "INPUT", "DROP");
    },
    async forward(url) {
      const { hostname, port } = new URL(url);
      const server = createServer((client) => {
        const target = connect(Number(port), hostname);
        open.push(client, target);
        for (const [from, to] of [
          [client, target],
          [target, client],
        ] as const) {
          from.pipe(to);
          from.on("error", () => to.destroy());
        }
      });
      open.push(server);
      await new Promise<void>((resolve) => server.listen(0, outside, resolve));
      const address = server.address();
      if (address === null || typeof address === "string") throw new Error("a TCP socket has a port");
      return `http://${outside}:${address.port}`;
    },
    async listenInside() {
      const script = `const s = require("net").createServer((c) => c.end()); s.listen(0, "${inside}", () => console.log(s.address().port));`;
      const [command = "ip", ...args] = [...within, process.execPath, "-e", script];
      const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
      const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
      let port = 0;
      for await (const line of createInterface({ input: child.stdout })) {
        port = Number(line);
        break;
      }
      return {
        port,
        async stop() {
          child.kill("SIGKILL");
          await ended;
        },
      };
    },
    async remove() {
      for (const each of open) {
        if ("close" in each) each.close();
        else each.destroy();
      }
      // The pair of interfaces goes with the namespace that holds one of them.
      ip("netns", "delete", name);
    },
  };
}
