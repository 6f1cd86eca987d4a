import { access, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { brotliDecompress } from "node:zlib";

/** SwiftShader's Vulkan driver, its manifest, and the Vulkan loader, so that no system Vulkan is needed. */
const WANTED = ["libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json"];

/** Environment that makes a child process find the driver in `folder` and no other. */
export function swiftShaderEnvironment(folder: string): Record<string, string> {
  return { VK_ICD_FILENAMES: join(folder, "vk_swiftshader_icd.json"), LD_LIBRARY_PATH: folder };
}

/**
 * Unpacks the software Vulkan driver that @sparticuz/chromium carries, once per version of that package, and answers
 * its folder. Two agents that share a cache folder may both unpack; the first rename wins and the other is thrown
 * away. Throws where the package has no driver for this platform (it is built for Linux on x64 only).
 */
export async function unpackSwiftShader(cacheDir: string): Promise<string> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error(`no GPU adapter, and no software one for ${process.platform} on ${process.arch}`);
  }
  const packageRoot = dirname(dirname(createRequire(import.meta.url).resolve("@sparticuz/chromium")));
  const { version }: { version: string } = JSON.parse(
    await readFile(join(packageRoot, "package.json"), "utf8"),
  );
  const folder = join(cacheDir, `swiftshader-${version}`);
  if (await exists(folder)) return folder;

  await mkdir(cacheDir, { recursive: true });
  const scratch = await mkdtemp(join(cacheDir, "swiftshader-unpacking-"));
  const archive = await promisify(brotliDecompress)(
    await readFile(join(packageRoot, "bin", "swiftshader.tar.br")),
  );
  for (const { name, bytes } of tarFiles(archive)) {
    if (WANTED.includes(name)) await writeFile(join(scratch, name), bytes, { mode: 0o755 });
  }
  try {
    await rename(scratch, folder);
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    if (!(await exists(folder))) throw error;
  }
  return folder;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Plain files of a POSIX ustar archive: 512-byte headers with the name at 0, the size in octal at 124, the type at 156. */
function* tarFiles(archive: Buffer): Generator<{ name: string; bytes: Buffer }> {
  const text = (from: number, length: number) =>
    archive.toString("latin1", from, from + length).replace(/\0.*$/s, "");
  for (let at = 0; at + 512 <= archive.length && archive[at] !== 0; ) {
    const size = Number.parseInt(text(at + 124, 12), 8);
    if (text(at + 156, 1) === "0" || text(at + 156, 1) === "") {
      yield { name: text(at, 100).replace(/^\.\//, ""), bytes: archive.subarray(at + 512, at + 512 + size) };
    }
    at += 512 + Math.ceil(size / 512) * 512;
  }
}
