import { execFile } from "node:child_process";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Child, startProgram } from "../../child.ts";
import { freePort } from "../../free-port.ts";
import { type Contender, type Lacking, lacking, listensOn, onPath, type Stage } from "./contender.ts";
import { type Served, startDirect } from "./direct.ts";
import { answering } from "./plain-job.ts";

export const sshTunnel: Contender = {
  name: "ssh-tunnel",
  about: "`ssh -R` from behind to an OpenSSH server, and `direct` at its end",
  async start(stage) {
    const tunnel = await openSshTunnel(stage, "ssh", await startDirect(stage, "ssh-tunnel-direct"));
    return "lacks" in tunnel ? tunnel : answering(stage, tunnel.port, tunnel.processes);
  },
};

/** Through `ssh -R` to a server; `name` tells its folder and logs from another's. */
export async function openSshTunnel(
  stage: Stage,
  name: string,
  direct: { readonly port: number; readonly child: Child },
): Promise<Served | Lacking> {
  const sshd = onPath("sshd");
  const ssh = onPath("ssh");
  const keygen = onPath("ssh-keygen");
  if (sshd === null) return lacking("sshd", "openssh-server");
  if (ssh === null || keygen === null) return lacking("ssh", "openssh-client");

  const folder = join(stage.folder, name);
  await mkdir(folder);
  const hostKey = join(folder, "host");
  const key = join(folder, "key");
  for (const file of [hostKey, key])
    await promisify(execFile)(keygen, ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file]);
  await copyFile(`${key}.pub`, join(folder, "authorized"));
  // Debian's service makes it at its start; without it sshd does not serve root.
  if (userInfo().uid === 0) await mkdir("/run/sshd", { recursive: true });
  const port = await freePort();
  const config = join(folder, "sshd_config");
  await writeFile(
    config,
    [
      `Port ${port}`,
      "ListenAddress 127.0.0.1",
      `HostKey ${hostKey}`,
      `AuthorizedKeysFile ${join(folder, "authorized")}`,
      "PidFile none",
      "UsePAM no",
      // The keys lie in a folder for temporary files, which all may write.
      "StrictModes no",
      "PermitRootLogin prohibit-password",
      "PasswordAuthentication no",
      "AllowTcpForwarding remote",
      "",
    ].join("\n"),
  );
  const server = stage.owned(startProgram(`${name}d`, stage.folder, [sshd, "-D", "-e", "-f", config]));
  await listensOn(server, port);

  const entry = await freePort();
  const options = [
    "BatchMode=yes",
    "IdentitiesOnly=yes",
    "ExitOnForwardFailure=yes",
    "StrictHostKeyChecking=no",
    `UserKnownHostsFile=${join(folder, "known")}`,
  ].flatMap((option) => ["-o", option]);
  const forward = `127.0.0.1:${entry}:127.0.0.1:${direct.port}`;
  const login = `${userInfo().username}@127.0.0.1`;
  const client = stage.owned(
    startProgram(name, stage.folder, [
      ...[ssh, "-N", "-F", "none", "-i", key, "-p", `${port}`],
      ...options,
      ...["-R", forward, login],
    ]),
  );
  await listensOn(client, entry);
  return { port: entry, processes: [server, client, direct.child] };
}
