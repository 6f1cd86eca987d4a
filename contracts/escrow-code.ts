import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { Address } from "@gpux/protocol/ids";
import { encodeAbiParameters, encodeDeployData, getCreate2Address, type Hex } from "viem";
import { leaseEscrowBytecode, leaseEscrowImmutables, leaseEscrowRuntimeBytes } from "./bytecode.ts";
import { ESCROW_DELAYS } from "./networks.ts";

/** The keyless deployer at this address of every OP chain: calldata is a salt and the creation code. */
export const DETERMINISTIC_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C";

/** Its runtime code (github.com/Arachnid/deterministic-deployment-proxy), for chains that have to be given it. */
export const DETERMINISTIC_DEPLOYER_CODE =
  "0x7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3";

/** Changes with a new version of the escrow, never else. */
export const SALT: Hex = `0x${"00".repeat(31)}01`;

const CONSTRUCTOR_TYPES = [
  { type: "address" },
  { type: "uint256" },
  { type: "uint256" },
  { type: "uint256" },
  { type: "uint256" },
] as const;

export function constructorArgs(token: Address) {
  const { exit, cosignedExit, release, maxTerm } = ESCROW_DELAYS;
  return [token, exit, cosignedExit, release, maxTerm] as const;
}

/** As an explorer asks for them. */
export const encodedConstructorArgs = (token: Address): Hex =>
  encodeAbiParameters(CONSTRUCTOR_TYPES, constructorArgs(token));

export const creationCode = (token: Address, bytecode: Hex = leaseEscrowBytecode): Hex =>
  encodeDeployData({ abi: leaseEscrowAbi, bytecode, args: constructorArgs(token) });

/** Where the escrow for this token stands, or will, on any chain that has the deterministic deployer. */
export function escrowAddress(token: Address, bytecode: Hex = leaseEscrowBytecode): Address {
  const code = creationCode(token, bytecode);
  return Address.parse(getCreate2Address({ from: DETERMINISTIC_DEPLOYER, salt: SALT, bytecode: code }));
}

/** Whether this is the escrow's runtime code, whatever its immutables are: those are asked of the contract. */
export function isEscrowCode(code: Hex): boolean {
  const masked = (bytes: Buffer) => {
    for (const [start, length] of leaseEscrowImmutables) bytes.fill(0, start, start + length);
    return bytes;
  };
  // Solidity puts the runtime code, with zeros for its immutables, at the end of the creation code.
  const compiled = Buffer.from(leaseEscrowBytecode.slice(2), "hex").subarray(-leaseEscrowRuntimeBytes);
  const deployed = Buffer.from(code.slice(2), "hex");
  return (
    deployed.length === leaseEscrowRuntimeBytes && masked(deployed).equals(masked(Buffer.from(compiled)))
  );
}
