import { CLIENT_PROTOCOL, FromClient } from "@gpux/protocol/client-frames";
import { verifyRequest } from "@gpux/protocol/http-signature/erc8128";
import { upgradeWithCredentials } from "@gpux/protocol/http-signature/socket-credentials";
import type { ClientSocket, Dial } from "../socket-link.ts";
import { settlement } from "./market.ts";

type Listener = (event: { data: unknown; code: number }) => void;

/** The edge's end of one session socket, as a test scripts it. */
export class ScriptedSocket implements ClientSocket {
  readonly url: string;
  readonly protocols: readonly string[];
  readonly #listeners = new Map<string, Listener[]>();
  readonly #came: FromClient[] = [];
  #wanted: ((frame: FromClient) => void) | null = null;
  #isOpen = true;

  constructor(url: string, protocols: readonly string[]) {
    this.url = url;
    this.protocols = protocols;
  }

  addEventListener(type: string, listener: Listener | (() => void)): void {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
  }

  /** By the client. */
  send(text: string): void {
    if (text === "ping") return;
    const frame = FromClient.parse(JSON.parse(text));
    const want = this.#wanted;
    this.#wanted = null;
    if (want === null) this.#came.push(frame);
    else want(frame);
  }

  close(code = 1005): void {
    this.lose(code);
  }

  /** The next frame of the client. */
  async next(): Promise<FromClient> {
    return this.#came.shift() ?? (await new Promise<FromClient>((resolve) => (this.#wanted = resolve)));
  }

  get waiting(): number {
    return this.#came.length;
  }

  say(frame: object): void {
    this.#tell("message", { data: JSON.stringify({ v: 1, ...frame }), code: 0 });
  }

  ready(lease: string, mostUnderWay = 128): void {
    const until = "2030-01-01T00:00:00.000Z";
    this.say({ t: "ready", lease, most_under_way: mostUnderWay, frame_limit: 49_152, until });
  }

  lose(code = 1006): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#tell("close", { data: null, code });
  }

  /** Whose wallet signed the upgrade; throws when nobody's did. */
  async signer(now: number): Promise<string> {
    const url = this.url.replace(/^ws/, "http");
    const headers = { "sec-websocket-protocol": this.protocols.join(", ") };
    const upgrade = upgradeWithCredentials(new Request(url, { headers }));
    if (!upgrade.ok || !upgrade.speaks || this.protocols[0] !== CLIENT_PROTOCOL)
      throw new Error("no credentials");
    const { method, headers: fields } = upgrade.request;
    const request = { method, url, headers: fields, body: new Uint8Array() };
    const policy = { now, audience: [new URL(url).host], chainId: settlement.chain_id };
    const verified = await verifyRequest(request, policy);
    if (!verified.ok) throw new Error(verified.code);
    return verified.address;
  }

  #tell(type: string, event: { data: unknown; code: number }): void {
    for (const listener of this.#listeners.get(type) ?? []) listener(event);
  }
}

/** Dials as the SDK asks; the test takes each socket in turn. */
export function createScriptedDial() {
  const sockets: ScriptedSocket[] = [];
  let wanted: ((socket: ScriptedSocket) => void) | null = null;
  const dial: Dial = (url, protocols) => {
    const socket = new ScriptedSocket(url, protocols);
    if (wanted === null) sockets.push(socket);
    else wanted(socket);
    wanted = null;
    return socket;
  };
  const next = async () =>
    sockets.shift() ?? (await new Promise<ScriptedSocket>((resolve) => (wanted = resolve)));
  return { dial, next };
}
