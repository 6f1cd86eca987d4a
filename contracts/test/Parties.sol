// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {LeaseEscrow} from "../src/LeaseEscrow.sol";
import {UsdcDouble} from "../src/test/UsdcDouble.sol";
import {Vm} from "./Vm.sol";

/// @notice An escrow, its token, the parties of a lease and their signatures.
/// @dev Digests are computed here and not asked of the contract, so that the tests check the typed data too.
abstract contract Parties {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant PAYER_KEY = 0xA1;
    uint256 internal constant CONSUMER_KEY = 0xA2;
    uint256 internal constant AGENT_KEY = 0xA3;
    uint256 internal constant METER_KEY = 0xA4;
    uint256 internal constant OTHER_KEY = 0xA5;
    address internal constant PROVIDER = address(0xB1);
    address internal constant FEE_RECIPIENT = address(0xB2);
    address internal constant STRANGER = address(0xB3);

    uint8 internal constant CONSUMER_PROVIDER = 3;
    uint8 internal constant CONSUMER_METER = 5;
    uint8 internal constant PROVIDER_METER = 6;

    uint256 internal constant P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551;
    uint256 internal constant START = 1_800_000_000;
    uint88 internal constant USDC = 1e6;
    uint88 internal constant NO_CAP = type(uint88).max;
    bytes32 internal constant EVIDENCE = keccak256("receipts");

    UsdcDouble internal usdc;
    LeaseEscrow internal escrow;
    address internal payer = vm.addr(PAYER_KEY);

    error NotEqual(uint256 actual, uint256 expected);
    error NotTrue(string what);

    /// @dev Leaves every later call coming from STRANGER, who is no party of any lease: `msg.sender` carries no
    /// authority anywhere. A test that creates contracts stops the prank: EDR forgets STRANGER's nonce between
    /// setUp and test, so that a second creation would collide with the first.
    function deploy() internal {
        vm.warp(START);
        vm.startPrank(STRANGER);
        usdc = new UsdcDouble();
        escrow = newEscrow(address(usdc));
        usdc.mint(payer, 1_000_000 * USDC);
    }

    function newEscrow(address token) internal returns (LeaseEscrow) {
        return create(escrowCode(), IERC20(token), 24 hours, 1 hours);
    }

    /// @dev The contract under test, or what mutate.ts has made of it.
    function escrowCode() internal view returns (bytes memory) {
        return vm.envOr("ESCROW_CREATION_CODE", type(LeaseEscrow).creationCode);
    }

    function create(bytes memory code, IERC20 token, uint256 exitDelay, uint256 cosignedExitDelay)
        internal
        returns (LeaseEscrow created)
    {
        code = abi.encodePacked(
            code, abi.encode(token, exitDelay, cosignedExitDelay, uint256(1 hours), uint256(90 days))
        );
        assembly ("memory-safe") {
            created := create(0, add(code, 32), mload(code))
            if iszero(created) {
                returndatacopy(mload(64), 0, returndatasize())
                revert(mload(64), returndatasize())
            }
        }
    }

    /// @dev 2 USDC an hour for a day, 1 upfront, 10 unattended, 5 % fee.
    function standardTerms() internal view returns (ILeaseEscrow.LeaseTerms memory) {
        return ILeaseEscrow.LeaseTerms({
            payer: payer,
            consumerSigner: vm.addr(CONSUMER_KEY),
            provider: PROVIDER,
            providerSigner: vm.addr(AGENT_KEY),
            meter: vm.addr(METER_KEY),
            feeRecipient: FEE_RECIPIENT,
            feeBps: 500,
            upfront: 1 * USDC,
            unattended: 10 * USDC,
            ratePerHour: 2 * uint64(USDC),
            expiry: uint40(START + 24 hours),
            quote: keccak256("quote")
        });
    }

    function uncappedTerms() internal view returns (ILeaseEscrow.LeaseTerms memory terms) {
        terms = standardTerms();
        terms.upfront = NO_CAP;
        terms.unattended = NO_CAP;
    }

    // Typed data

    function typedDigest(bytes32 structHash) internal view returns (bytes32) {
        return typedDigest(structHash, address(escrow), block.chainid);
    }

    function typedDigest(bytes32 structHash, address verifyingContract, uint256 chainId)
        internal
        pure
        returns (bytes32)
    {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("GPUX Lease Escrow"),
                keccak256("1"),
                chainId,
                verifyingContract
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    function idOf(ILeaseEscrow.LeaseTerms memory terms) internal view returns (bytes32) {
        bytes32 typeHash = keccak256(
            "LeaseTerms(address payer,address consumerSigner,address provider,address providerSigner,address meter,address feeRecipient,uint16 feeBps,uint88 upfront,uint88 unattended,uint64 ratePerHour,uint40 expiry,bytes32 quote)"
        );
        return typedDigest(keccak256(abi.encode(typeHash, terms)));
    }

    function usageHash(bytes32 id, uint88 cumulative) internal pure returns (bytes32) {
        bytes32 typeHash = keccak256("Usage(bytes32 leaseId,uint88 cumulative,bytes32 evidence)");
        return keccak256(abi.encode(typeHash, id, cumulative, EVIDENCE));
    }

    function closeHash(bytes32 id, uint88 cumulative, uint40 validBefore) internal pure returns (bytes32) {
        bytes32 typeHash =
            keccak256("Close(bytes32 leaseId,uint88 cumulative,bytes32 evidence,uint40 validBefore)");
        return keccak256(abi.encode(typeHash, id, cumulative, EVIDENCE, validBefore));
    }

    function depositHash(address spender, address meter, uint88 amount, bytes32 salt)
        internal
        view
        returns (bytes32)
    {
        bytes32 typeHash =
            keccak256("Deposit(address payer,address spender,address meter,uint88 amount,bytes32 salt)");
        return keccak256(abi.encode(typeHash, payer, spender, meter, amount, salt));
    }

    function allocateDigest(bytes32[] memory ids, uint88[] memory fundedTo, uint40 validBefore)
        internal
        view
        returns (bytes32)
    {
        bytes32 typeHash = keccak256("Allocate(bytes32[] leaseIds,uint88[] fundedTo,uint40 validBefore)");
        return typedDigest(
            keccak256(
                abi.encode(
                    typeHash,
                    keccak256(abi.encodePacked(ids)),
                    keccak256(abi.encodePacked(fundedTo)),
                    validBefore
                )
            )
        );
    }

    function releaseDigest(address spender, address meter, uint40 validBefore)
        internal
        view
        returns (bytes32)
    {
        bytes32 typeHash =
            keccak256("Release(address payer,address spender,address meter,uint40 validBefore)");
        return typedDigest(keccak256(abi.encode(typeHash, payer, spender, meter, validBefore)));
    }

    function revokeDigest(address meter) internal view returns (bytes32) {
        return typedDigest(keccak256(abi.encode(keccak256("RevokeMeter(address meter)"), meter)));
    }

    function exitDigest(bytes32 id) internal view returns (bytes32) {
        return typedDigest(keccak256(abi.encode(keccak256("Exit(bytes32 leaseId)"), id)));
    }

    // Signatures

    function signed(uint256 key, bytes32 digest) internal pure returns (ILeaseEscrow.Sig memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return ILeaseEscrow.Sig({r: r, vs: v == 28 ? s | bytes32(uint256(1) << 255) : s});
    }

    function signedBytes(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function pairOf(uint8 roles, bytes32 digest) internal pure returns (ILeaseEscrow.Pair memory) {
        uint256 a = roles & 1 != 0 ? CONSUMER_KEY : AGENT_KEY;
        uint256 b = roles & 4 != 0 ? METER_KEY : AGENT_KEY;
        return ILeaseEscrow.Pair({roles: roles, a: signed(a, digest), b: signed(b, digest)});
    }

    function usagePair(ILeaseEscrow.LeaseTerms memory terms, uint88 cumulative, uint8 roles)
        internal
        view
        returns (ILeaseEscrow.Pair memory)
    {
        return pairOf(roles, typedDigest(usageHash(idOf(terms), cumulative)));
    }

    function closePair(
        ILeaseEscrow.LeaseTerms memory terms,
        uint88 cumulative,
        uint40 validBefore,
        uint8 roles
    ) internal view returns (ILeaseEscrow.Pair memory) {
        return pairOf(roles, typedDigest(closeHash(idOf(terms), cumulative, validBefore)));
    }

    function noSig() internal pure returns (ILeaseEscrow.Sig memory sig) {}

    function noKey() internal pure returns (ILeaseEscrow.PublicKey memory key) {}

    function noAllowance() internal pure returns (ILeaseEscrow.Allowance memory allowance) {}

    function allowanceOf(ILeaseEscrow.LeaseTerms memory terms, uint88 cumulative)
        internal
        view
        returns (ILeaseEscrow.Allowance memory)
    {
        bytes32 typeHash = keccak256("Allowance(bytes32 leaseId,uint88 cumulative)");
        bytes32 digest = typedDigest(keccak256(abi.encode(typeHash, idOf(terms), cumulative)));
        return ILeaseEscrow.Allowance({cumulative: cumulative, sig: signed(CONSUMER_KEY, digest)});
    }

    // Funding

    function tokenDigest(string memory primaryType, uint256 value, bytes32 nonce, address from)
        internal
        view
        returns (bytes32)
    {
        bytes32 typeHash = keccak256(
            bytes(
                string.concat(
                    primaryType,
                    "(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
                )
            )
        );
        bytes32 structHash = keccak256(
            abi.encode(typeHash, from, address(escrow), value, START - 1, START + 30 days, nonce)
        );
        return keccak256(abi.encodePacked(hex"1901", usdc.DOMAIN_SEPARATOR(), structHash));
    }

    function nonceOf(bytes32[] memory ids, uint88[] memory amounts, bytes32 salt)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(
            abi.encode(
                keccak256("Funding(bytes32[] leaseIds,uint88[] amounts,bytes32 salt)"),
                keccak256(abi.encodePacked(ids)),
                keccak256(abi.encodePacked(amounts)),
                salt
            )
        );
    }

    function authorize(
        uint256 key,
        ILeaseEscrow.LeaseTerms[] memory terms,
        uint88[] memory amounts,
        bytes32 salt
    ) internal view returns (ILeaseEscrow.Authorization memory) {
        bytes32[] memory ids = new bytes32[](terms.length);
        uint256 total;
        for (uint256 i; i < terms.length; ++i) {
            ids[i] = idOf(terms[i]);
            total += amounts[i];
        }
        bytes32 nonce = nonceOf(ids, amounts, salt);
        bytes32 digest = tokenDigest("ReceiveWithAuthorization", total, nonce, vm.addr(key));
        return authorization(vm.addr(key), salt, signedBytes(key, digest));
    }

    function authorization(address from, bytes32 salt, bytes memory signature)
        internal
        pure
        returns (ILeaseEscrow.Authorization memory)
    {
        return ILeaseEscrow.Authorization({
            from: from, salt: salt, validAfter: START - 1, validBefore: START + 30 days, signature: signature
        });
    }

    function only(ILeaseEscrow.LeaseTerms memory terms)
        internal
        pure
        returns (ILeaseEscrow.LeaseTerms[] memory list)
    {
        list = new ILeaseEscrow.LeaseTerms[](1);
        list[0] = terms;
    }

    function only(uint88 amount) internal pure returns (uint88[] memory list) {
        list = new uint88[](1);
        list[0] = amount;
    }

    function open(ILeaseEscrow.LeaseTerms memory terms, uint88 amount) internal returns (bytes32 id) {
        id = idOf(terms);
        escrow.fund(only(terms), only(amount), authorize(PAYER_KEY, only(terms), only(amount), id));
    }

    // Credit

    /// @dev Of the standard spender and meter.
    function deposit(uint88 amount, bytes32 salt) internal {
        address spender = vm.addr(CONSUMER_KEY);
        address meter = vm.addr(METER_KEY);
        escrow.deposit(spender, meter, amount, depositAuthorization(spender, meter, amount, salt));
    }

    function depositAuthorization(address spender, address meter, uint88 amount, bytes32 salt)
        internal
        view
        returns (ILeaseEscrow.Authorization memory)
    {
        bytes32 nonce = depositHash(spender, meter, amount, salt);
        bytes32 digest = tokenDigest("ReceiveWithAuthorization", amount, nonce, payer);
        return authorization(payer, salt, signedBytes(PAYER_KEY, digest));
    }

    function idsOf(ILeaseEscrow.LeaseTerms[] memory terms) internal view returns (bytes32[] memory ids) {
        ids = new bytes32[](terms.length);
        for (uint256 i; i < terms.length; ++i) {
            ids[i] = idOf(terms[i]);
        }
    }

    /// @dev By the standard spender and meter, for an hour.
    function allocate(ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory fundedTo) internal {
        uint40 validBefore = uint40(block.timestamp + 1 hours);
        bytes32 digest = allocateDigest(idsOf(terms), fundedTo, validBefore);
        escrow.allocate(
            terms, fundedTo, validBefore, signedBytes(CONSUMER_KEY, digest), signed(METER_KEY, digest)
        );
    }

    /// @dev Opens a lease from credit that it deposits first.
    function openFromCredit(ILeaseEscrow.LeaseTerms memory terms, uint88 amount)
        internal
        returns (bytes32 id)
    {
        id = idOf(terms);
        deposit(amount, id);
        allocate(only(terms), only(amount));
    }

    function release(uint256 key, bool cosigned) internal {
        (address spender, address meter) = (vm.addr(CONSUMER_KEY), vm.addr(METER_KEY));
        uint40 validBefore = uint40(block.timestamp + 10 minutes);
        bytes32 digest = releaseDigest(spender, meter, validBefore);
        ILeaseEscrow.Sig memory meterSig = cosigned ? signed(METER_KEY, digest) : noSig();
        escrow.release(payer, spender, meter, validBefore, signedBytes(key, digest), meterSig);
    }

    function revokeMeter() internal {
        address meter = vm.addr(METER_KEY);
        escrow.revokeMeter(meter, signed(METER_KEY, revokeDigest(meter)));
    }

    function creditOf(address spender, address meter) internal view returns (ILeaseEscrow.Credit memory c) {
        (c.amount, c.releaseAt) = escrow.credits(payer, spender, meter);
    }

    /// @dev Of the standard spender and meter.
    function credit() internal view returns (ILeaseEscrow.Credit memory) {
        return creditOf(vm.addr(CONSUMER_KEY), vm.addr(METER_KEY));
    }

    // P-256

    function p256Id(uint256 key) internal pure returns (address) {
        (uint256 x, uint256 y) = vm.publicKeyP256(key);
        return address(uint160(uint256(keccak256(abi.encode(x, y)))));
    }

    function p256Key(uint256 key) internal pure returns (ILeaseEscrow.PublicKey memory) {
        (uint256 x, uint256 y) = vm.publicKeyP256(key);
        return ILeaseEscrow.PublicKey({x: bytes32(x), y: bytes32(y)});
    }

    /// @dev As WebCrypto signs, brought to the lower s.
    function p256Signed(uint256 key, bytes32 digest) internal pure returns (ILeaseEscrow.Sig memory) {
        (bytes32 r, bytes32 s) = vm.signP256(key, sha256(abi.encode(digest)));
        if (uint256(s) > P256_ORDER / 2) s = bytes32(P256_ORDER - uint256(s));
        return ILeaseEscrow.Sig({r: r, vs: s});
    }

    function p256SignedBytes(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        ILeaseEscrow.Sig memory sig = p256Signed(key, digest);
        ILeaseEscrow.PublicKey memory public_ = p256Key(key);
        return abi.encode(sig.r, sig.vs, public_.x, public_.y);
    }

    // Calls

    function settle(ILeaseEscrow.LeaseTerms memory terms, uint88 cumulative, uint8 roles) internal {
        escrow.settle(terms, cumulative, EVIDENCE, usagePair(terms, cumulative, roles), noAllowance(), noKey());
    }

    function close(ILeaseEscrow.LeaseTerms memory terms, uint88 cumulative, uint8 roles) internal {
        uint40 validBefore = uint40(block.timestamp + 1 hours);
        ILeaseEscrow.Pair memory pair = closePair(terms, cumulative, validBefore, roles);
        escrow.close(terms, cumulative, EVIDENCE, validBefore, pair, noAllowance(), noKey());
    }

    function exit(ILeaseEscrow.LeaseTerms memory terms, bool cosigned) internal {
        bytes32 digest = exitDigest(idOf(terms));
        ILeaseEscrow.Sig memory meterSig = cosigned ? signed(METER_KEY, digest) : noSig();
        escrow.requestExit(terms, signedBytes(CONSUMER_KEY, digest), meterSig);
    }

    function leaseOf(bytes32 id) internal view returns (ILeaseEscrow.Lease memory lease) {
        (lease.funded, lease.paid, lease.openedAt, lease.exitAt, lease.status, lease.fromCredit) =
            escrow.leases(id);
    }

    // Assertions

    function expect(uint256 actual, uint256 expected) internal pure {
        require(actual == expected, NotEqual(actual, expected));
    }

    function expectStatus(bytes32 id, ILeaseEscrow.Status expected) internal view {
        expect(uint256(leaseOf(id).status), uint256(expected));
    }

    function within(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + value % (high - low + 1);
    }

    function refuse(bytes4 selector) internal {
        vm.expectRevert(abi.encodeWithSelector(selector));
    }

    function refuse(bytes4 selector, uint256 a) internal {
        vm.expectRevert(abi.encodeWithSelector(selector, a));
    }

    function refuse(bytes4 selector, address a) internal {
        vm.expectRevert(abi.encodeWithSelector(selector, a));
    }

    function refuse(bytes4 selector, uint256 a, uint256 b) internal {
        vm.expectRevert(abi.encodeWithSelector(selector, a, b));
    }

    function refuse(string memory reason) internal {
        vm.expectRevert(abi.encodeWithSignature("Error(string)", reason));
    }

    function refuseStatus(ILeaseEscrow.Status status) internal {
        refuse(ILeaseEscrow.BadStatus.selector, uint256(status));
    }
}
