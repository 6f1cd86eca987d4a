// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {P256} from "@openzeppelin/contracts/utils/cryptography/P256.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {ILeaseEscrow} from "./ILeaseEscrow.sol";

/// @notice The one call that moves a payer's money in: EIP-3009 with the `bytes` overload of USDC 2.2, which
/// also takes the ERC-1271 signature of a smart wallet.
interface IReceiveWithAuthorization {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}

/// @title GPUX lease escrow
/// @notice Holds the USDC of compute leases and pays providers by cumulative usage, signed by two of the lease's
/// three keys: consumer, provider, meter.
///
/// Trust. There is no owner, proxy, pause or upgrade. Authority comes from signatures over typed data alone:
/// `msg.sender` is never read, so anyone may submit any call, batch it through Multicall3, or force it in from
/// L1. Alone, the payer or the consumer's key can only ask for the rest back after a delay, the provider can do
/// nothing and the meter only resign, and no key can change where money goes: it is fixed in the terms. Any two
/// keys that cheat together stay below `upfront + ratePerHour * hours` of that one lease, unless its terms say
/// that there is no cap (`upfront` of 2^88 - 1); without the consumer's own signature also below what the terms
/// leave unattended or what the consumer allowed in writing. Credit is the exception that a payer makes by
/// depositing: its spender and its meter together choose the terms on which it is spent.
///
/// The token is trusted to be USDC: exact transfers, EIP-3009 with free 32-byte nonces. If it pauses or
/// blacklists this contract, everything waits. Tokens that are sent here by a plain transfer are lost.
///
/// @dev Terms are taken into memory once, where solc would check a field of calldata anew, for some 110 gas, each
/// time that it is read; opening a lease reads thirty.
contract LeaseEscrow is ILeaseEscrow, EIP712, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    uint8 private constant CONSUMER = 1;
    uint8 private constant PROVIDER = 2;
    uint8 private constant METER = 4;

    uint256 private constant BPS = 10_000;
    uint256 private constant MAX_FEE_BPS = 5_000;

    /// @dev Enough for a multi-owner or passkey wallet, and the most a hostile one can burn of a relayer's gas.
    uint256 private constant ERC1271_GAS = 300_000;

    bytes32 private constant LEASE_TERMS_TYPEHASH = keccak256(
        "LeaseTerms(address payer,address consumerSigner,address provider,address providerSigner,address meter,address feeRecipient,uint16 feeBps,uint88 upfront,uint88 unattended,uint64 ratePerHour,uint40 expiry,bytes32 quote)"
    );
    bytes32 private constant FUNDING_TYPEHASH =
        keccak256("Funding(bytes32[] leaseIds,uint88[] amounts,bytes32 salt)");
    bytes32 private constant USAGE_TYPEHASH =
        keccak256("Usage(bytes32 leaseId,uint88 cumulative,bytes32 evidence)");
    bytes32 private constant ALLOWANCE_TYPEHASH = keccak256("Allowance(bytes32 leaseId,uint88 cumulative)");
    bytes32 private constant CLOSE_TYPEHASH =
        keccak256("Close(bytes32 leaseId,uint88 cumulative,bytes32 evidence,uint40 validBefore)");
    bytes32 private constant EXIT_TYPEHASH = keccak256("Exit(bytes32 leaseId)");
    bytes32 private constant DEPOSIT_TYPEHASH =
        keccak256("Deposit(address payer,address spender,address meter,uint88 amount,bytes32 salt)");
    bytes32 private constant ALLOCATE_TYPEHASH =
        keccak256("Allocate(bytes32[] leaseIds,uint88[] fundedTo,uint40 validBefore)");
    bytes32 private constant RELEASE_TYPEHASH =
        keccak256("Release(address payer,address spender,address meter,uint40 validBefore)");
    bytes32 private constant REVOKE_METER_TYPEHASH = keccak256("RevokeMeter(address meter)");

    /// @notice The settlement token.
    IERC20 public immutable token;
    /// @notice Seconds from an exit that the meter did not co-sign, or from expiry, until the rest is free:
    /// the provider's time to land its last voucher without the marketplace.
    uint256 public immutable EXIT_DELAY;
    /// @notice Seconds from an exit that the meter co-signed until the rest is free.
    uint256 public immutable COSIGNED_EXIT_DELAY;
    /// @notice Seconds from a release of credit that the meter did not co-sign until it takes effect.
    uint256 public immutable RELEASE_DELAY;
    /// @notice The longest time, in seconds, from opening to expiry.
    uint256 public immutable MAX_TERM;

    /// @notice State by lease id. `status` None: never funded here.
    mapping(bytes32 leaseId => Lease) public leases;
    /// @notice What `withdraw` pays to an account.
    mapping(address account => uint256 amount) public owed;
    /// @notice What a payer set aside for a spender and a meter.
    mapping(address payer => mapping(address spender => mapping(address meter => Credit))) public credits;
    /// @notice When a meter resigned; 0: it has not.
    mapping(address meter => uint256 timestamp) public meterRevokedAt;
    /// @notice Releases that have been used, by their EIP-712 digest.
    mapping(bytes32 digest => bool) public releaseUsed;

    constructor(
        IERC20 token_,
        uint256 exitDelay,
        uint256 cosignedExitDelay,
        uint256 releaseDelay,
        uint256 maxTerm
    ) EIP712("GPUX Lease Escrow", "1") {
        require(address(token_).code.length > 0, NoToken(address(token_)));
        require(
            cosignedExitDelay > 0 && cosignedExitDelay <= exitDelay, BadDelays(exitDelay, cosignedExitDelay)
        );
        token = token_;
        EXIT_DELAY = exitDelay;
        COSIGNED_EXIT_DELAY = cosignedExitDelay;
        RELEASE_DELAY = releaseDelay;
        MAX_TERM = maxTerm;
    }

    /// @inheritdoc ILeaseEscrow
    function fund(LeaseTerms[] calldata terms, uint88[] calldata amounts, Authorization calldata auth)
        external
        nonReentrant
    {
        require(
            terms.length > 0 && terms.length == amounts.length, LengthMismatch(terms.length, amounts.length)
        );
        bytes32[] memory ids = new bytes32[](terms.length);
        uint256 total;
        for (uint256 i; i < terms.length; ++i) {
            LeaseTerms memory each = terms[i];
            ids[i] = leaseId(each);
            total += amounts[i];
            _fund(ids[i], each, amounts[i], auth.from, false);
        }
        _receive(auth, total, fundingNonce(ids, amounts, auth.salt));
    }

    /// @inheritdoc ILeaseEscrow
    function deposit(address spender, address meter, uint88 amount, Authorization calldata auth)
        external
        nonReentrant
    {
        require(amount > 0, ZeroAmount(0));
        require(spender != address(0), BadParty(spender));
        require(meter != address(0), BadParty(meter));
        require(spender != meter, SharedKey(meter));
        require(meterRevokedAt[meter] == 0, RevokedMeter(meter));
        credits[auth.from][spender][meter].amount += amount;
        emit CreditDeposited(auth.from, spender, meter, amount);
        _receive(auth, amount, depositNonce(auth.from, spender, meter, amount, auth.salt));
    }

    /// @inheritdoc ILeaseEscrow
    function allocate(
        LeaseTerms[] calldata terms,
        uint88[] calldata fundedTo,
        uint40 validBefore,
        bytes calldata signature,
        Sig calldata meterSig
    ) external nonReentrant {
        require(block.timestamp < validBefore, Expired(validBefore));
        require(
            terms.length > 0 && terms.length == fundedTo.length, LengthMismatch(terms.length, fundedTo.length)
        );
        LeaseTerms memory first = terms[0];
        (bytes32[] memory ids, uint256 total) = _fundTo(first, terms, fundedTo);
        bytes32 digest = _hashTypedDataV4(
            keccak256(
                abi.encode(
                    ALLOCATE_TYPEHASH,
                    keccak256(abi.encodePacked(ids)),
                    keccak256(abi.encodePacked(fundedTo)),
                    validBefore
                )
            )
        );
        address signer = _signerOf(digest, signature);
        require(signer != address(0) && signer == first.consumerSigner, BadSignature(first.consumerSigner));
        _checkCosign(digest, meterSig, first.meter);
        Credit storage credit = credits[first.payer][first.consumerSigner][first.meter];
        require(total > 0, NothingToAllocate());
        require(total <= credit.amount, InsufficientCredit(credit.amount, total));
        credit.amount -= uint88(total);
        emit CreditAllocated(first.payer, first.consumerSigner, first.meter, total);
    }

    /// @inheritdoc ILeaseEscrow
    function release(
        address payer,
        address spender,
        address meter,
        uint40 validBefore,
        bytes calldata signature,
        Sig calldata meterSig
    ) external nonReentrant {
        require(block.timestamp < validBefore, Expired(validBefore));
        bytes32 digest =
            _hashTypedDataV4(keccak256(abi.encode(RELEASE_TYPEHASH, payer, spender, meter, validBefore)));
        require(_signedByOwner(payer, spender, digest, signature), BadSignature(payer));
        Credit storage credit = credits[payer][spender][meter];
        uint256 releaseAt = credit.releaseAt;
        bool cosigned = meterSig.r != 0;
        // Once the delay runs, the same request may come again to be hastened, but nothing may start it anew.
        require(!releaseUsed[digest] || (cosigned && releaseAt > 0), ReleaseUsed(digest));
        releaseUsed[digest] = true;
        if (cosigned) {
            _checkCosign(digest, meterSig, meter);
            _returnCredit(payer, spender, meter);
        } else {
            require(releaseAt == 0, ReleasePending(releaseAt));
            require(credit.amount > 0, NothingOwed(payer));
            releaseAt = block.timestamp + RELEASE_DELAY;
            credit.releaseAt = SafeCast.toUint40(releaseAt);
            emit ReleaseRequested(payer, spender, meter, releaseAt);
        }
    }

    /// @inheritdoc ILeaseEscrow
    function reclaimCredit(address payer, address spender, address meter) external nonReentrant {
        uint256 releaseAt = credits[payer][spender][meter].releaseAt;
        require(releaseAt > 0, NoRelease());
        require(block.timestamp >= releaseAt, TooEarly(releaseAt));
        _returnCredit(payer, spender, meter);
    }

    /// @inheritdoc ILeaseEscrow
    function settle(
        LeaseTerms memory terms,
        uint88 cumulative,
        bytes32 evidence,
        Pair calldata pair,
        Allowance calldata allowance,
        PublicKey calldata consumerKey
    ) external nonReentrant {
        bytes32 id = leaseId(terms);
        Lease memory lease = _live(id);
        _checkPair(
            terms, pair, consumerKey, keccak256(abi.encode(USAGE_TYPEHASH, id, cumulative, evidence))
        );
        _checkAllowance(terms, id, pair.roles, allowance, consumerKey);
        uint88 newPaid = _due(lease, terms, cumulative, pair.roles, allowance.cumulative);
        require(newPaid > lease.paid, Stale(lease.paid));
        _credit(id, terms, lease.paid, newPaid, cumulative, pair.roles, evidence);
        leases[id].paid = newPaid;
    }

    /// @inheritdoc ILeaseEscrow
    function close(
        LeaseTerms memory terms,
        uint88 cumulative,
        bytes32 evidence,
        uint40 validBefore,
        Pair calldata pair,
        Allowance calldata allowance,
        PublicKey calldata consumerKey
    ) external nonReentrant {
        require(block.timestamp < validBefore, Expired(validBefore));
        require(pair.roles & PROVIDER != 0, BadRoles(pair.roles));
        bytes32 id = leaseId(terms);
        Lease memory lease = _live(id);
        _checkPair(
            terms,
            pair,
            consumerKey,
            keccak256(abi.encode(CLOSE_TYPEHASH, id, cumulative, evidence, validBefore))
        );
        _checkAllowance(terms, id, pair.roles, allowance, consumerKey);
        require(cumulative >= lease.paid, Stale(lease.paid));
        uint88 limit = _due(lease, terms, cumulative, pair.roles, allowance.cumulative);
        require(cumulative <= limit, AboveDue(cumulative, limit));
        _credit(id, terms, lease.paid, cumulative, cumulative, pair.roles, evidence);
        lease.paid = cumulative;
        _end(id, terms, lease);
    }

    /// @inheritdoc ILeaseEscrow
    function requestExit(LeaseTerms memory terms, bytes calldata signature, Sig calldata meterSig)
        external
        nonReentrant
    {
        bytes32 id = leaseId(terms);
        Lease memory lease = _live(id);
        bool cosigned = meterSig.r != 0;
        require(
            lease.status == Status.Open || (cosigned && lease.status == Status.Exiting),
            BadStatus(lease.status)
        );
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(EXIT_TYPEHASH, id)));
        require(
            _signedByOwner(terms.payer, terms.consumerSigner, digest, signature), BadSignature(terms.payer)
        );
        if (cosigned) _checkCosign(digest, meterSig, terms.meter);
        if (lease.status == Status.Open) lease.exitAt = SafeCast.toUint32(block.timestamp);
        lease.status = cosigned ? Status.ExitingCosigned : Status.Exiting;
        leases[id] = lease;
        emit ExitRequested(id, lease.exitAt, _reclaimableAt(lease, terms.expiry), cosigned);
    }

    /// @inheritdoc ILeaseEscrow
    function reclaim(LeaseTerms memory terms) external nonReentrant {
        bytes32 id = leaseId(terms);
        Lease memory lease = _live(id);
        uint256 notBefore = _reclaimableAt(lease, terms.expiry);
        require(block.timestamp >= notBefore, TooEarly(notBefore));
        _end(id, terms, lease);
    }

    /// @inheritdoc ILeaseEscrow
    function revokeMeter(address meter, Sig calldata sig) external nonReentrant {
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(REVOKE_METER_TYPEHASH, meter)));
        _checkSignature(digest, sig, meter);
        require(meterRevokedAt[meter] == 0, RevokedMeter(meter));
        meterRevokedAt[meter] = block.timestamp;
        emit MeterRevoked(meter);
    }

    /// @inheritdoc ILeaseEscrow
    function withdraw(address account) external nonReentrant {
        uint256 amount = owed[account];
        require(amount > 0, NothingOwed(account));
        owed[account] = 0;
        emit Withdrawn(account, amount);
        token.safeTransfer(account, amount);
    }

    /// @inheritdoc ILeaseEscrow
    function leaseId(LeaseTerms memory terms) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(LEASE_TERMS_TYPEHASH, terms)));
    }

    /// @inheritdoc ILeaseEscrow
    function fundingNonce(bytes32[] memory leaseIds, uint88[] calldata amounts, bytes32 salt)
        public
        pure
        returns (bytes32)
    {
        // abi.encodePacked pads array elements to 32 bytes, which is the EIP-712 encoding of an array.
        return keccak256(
            abi.encode(
                FUNDING_TYPEHASH,
                keccak256(abi.encodePacked(leaseIds)),
                keccak256(abi.encodePacked(amounts)),
                salt
            )
        );
    }

    /// @inheritdoc ILeaseEscrow
    function depositNonce(address payer, address spender, address meter, uint88 amount, bytes32 salt)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(DEPOSIT_TYPEHASH, payer, spender, meter, amount, salt));
    }

    /// @inheritdoc ILeaseEscrow
    function due(LeaseTerms memory terms, uint88 cumulative, uint8 roles, uint88 allowance)
        external
        view
        returns (uint88)
    {
        Lease memory lease = leases[leaseId(terms)];
        if (lease.status == Status.None || lease.status == Status.Closed) return lease.paid;
        return _due(lease, terms, cumulative, roles, allowance);
    }

    /// @dev State comes first, so that a token which calls back finds nothing half done; then its balance tells.
    function _receive(Authorization calldata auth, uint256 total, bytes32 nonce) private {
        uint256 balance = token.balanceOf(address(this));
        IReceiveWithAuthorization(address(token)).receiveWithAuthorization(
            auth.from, address(this), total, auth.validAfter, auth.validBefore, nonce, auth.signature
        );
        uint256 received = token.balanceOf(address(this)) - balance;
        require(received == total, TransferMismatch(total, received));
    }

    /// @dev Raises each lease to its target; those that are there already, a replay's for one, stay as they are.
    function _fundTo(LeaseTerms memory first, LeaseTerms[] calldata terms, uint88[] calldata fundedTo)
        private
        returns (bytes32[] memory ids, uint256 total)
    {
        ids = new bytes32[](terms.length);
        for (uint256 i; i < terms.length; ++i) {
            LeaseTerms memory each = terms[i];
            ids[i] = leaseId(each);
            require(
                each.payer == first.payer && each.consumerSigner == first.consumerSigner
                    && each.meter == first.meter,
                OtherCredit(ids[i])
            );
            uint88 funded = leases[ids[i]].funded;
            if (fundedTo[i] <= funded) continue;
            total += fundedTo[i] - funded;
            _fund(ids[i], each, fundedTo[i] - funded, first.payer, true);
        }
    }

    function _fund(bytes32 id, LeaseTerms memory terms, uint88 amount, address from, bool fromCredit)
        private
    {
        require(amount > 0, ZeroAmount(id));
        require(block.timestamp < terms.expiry, Expired(terms.expiry));
        Lease memory lease = leases[id];
        if (lease.status == Status.None) {
            require(from == terms.payer, NotPayer(from, terms.payer));
            _checkTerms(terms);
            lease.status = Status.Open;
            lease.openedAt = SafeCast.toUint32(block.timestamp);
            lease.fromCredit = fromCredit;
            emit LeaseOpened(id, terms.payer, terms.provider, terms);
        } else {
            require(lease.status == Status.Open, BadStatus(lease.status));
        }
        lease.funded += amount;
        leases[id] = lease;
        emit LeaseFunded(id, from, amount, lease.funded);
    }

    /// @dev Two roles on one key would be two votes of one party. A zero key could never sign, and money owed
    /// to the token or to this contract could never be withdrawn.
    function _checkTerms(LeaseTerms memory terms) private view {
        _checkPayee(terms.payer);
        _checkPayee(terms.provider);
        require(terms.payer != terms.provider, BadParty(terms.provider));
        if (terms.feeBps > 0) _checkPayee(terms.feeRecipient);
        require(terms.feeBps <= MAX_FEE_BPS, FeeTooHigh(terms.feeBps, MAX_FEE_BPS));
        require(terms.consumerSigner != address(0), BadParty(terms.consumerSigner));
        require(terms.providerSigner != address(0), BadParty(terms.providerSigner));
        require(terms.meter != address(0), BadParty(terms.meter));
        require(terms.consumerSigner != terms.providerSigner, SharedKey(terms.consumerSigner));
        require(terms.consumerSigner != terms.meter, SharedKey(terms.meter));
        require(terms.providerSigner != terms.meter, SharedKey(terms.meter));
        require(meterRevokedAt[terms.meter] == 0, RevokedMeter(terms.meter));
        uint256 limit = block.timestamp + MAX_TERM;
        require(terms.expiry <= limit, TermTooLong(terms.expiry, limit));
    }

    function _checkPayee(address account) private view {
        require(
            account != address(0) && account != address(this) && account != address(token), BadParty(account)
        );
    }

    function _live(bytes32 id) private view returns (Lease storage lease) {
        lease = leases[id];
        require(lease.status != Status.None && lease.status != Status.Closed, BadStatus(lease.status));
    }

    function _checkPair(
        LeaseTerms memory terms,
        Pair calldata pair,
        PublicKey calldata consumerKey,
        bytes32 structHash
    ) private view {
        uint8 roles = pair.roles;
        require(
            roles == CONSUMER | PROVIDER || roles == CONSUMER | METER || roles == PROVIDER | METER,
            BadRoles(roles)
        );
        bytes32 digest = _hashTypedDataV4(structHash);
        if (roles & CONSUMER == 0) _checkSignature(digest, pair.a, terms.providerSigner);
        else _checkConsumer(digest, pair.a, consumerKey, terms.consumerSigner);
        _checkSignature(digest, pair.b, roles & METER == 0 ? terms.providerSigner : terms.meter);
    }

    function _checkAllowance(
        LeaseTerms memory terms,
        bytes32 id,
        uint8 roles,
        Allowance calldata allowance,
        PublicKey calldata consumerKey
    ) private view {
        // With the consumer's signature on the usage itself, or none needed, there is nothing to check.
        if (roles & CONSUMER != 0 || allowance.cumulative == 0) return;
        bytes32 structHash = keccak256(abi.encode(ALLOWANCE_TYPEHASH, id, allowance.cumulative));
        _checkConsumer(_hashTypedDataV4(structHash), allowance.sig, consumerKey, terms.consumerSigner);
    }

    function _checkConsumer(
        bytes32 digest,
        Sig calldata sig,
        PublicKey calldata key,
        address consumerSigner
    ) private view {
        // The curve has points whose x is zero, but nobody knows their keys.
        if (key.x == 0) return _checkSignature(digest, sig, consumerSigner);
        require(_p256Signer(digest, sig.r, sig.vs, key.x, key.y) == consumerSigner, BadSignature(consumerSigner));
    }

    /// @dev Beyond vouchers, the word of a meter that resigned counts for nothing.
    function _checkCosign(bytes32 digest, Sig calldata sig, address meter) private view {
        require(meterRevokedAt[meter] == 0, RevokedMeter(meter));
        _checkSignature(digest, sig, meter);
    }

    /// @dev ECDSA only, also for a signer that has code (EIP-7702): nothing on this path calls a stranger, so
    /// a signature cannot be revoked and one entry of a batch cannot burn the gas of the others.
    function _checkSignature(bytes32 digest, Sig calldata sig, address signer) private pure {
        (address recovered,,) = ECDSA.tryRecover(digest, sig.r, sig.vs);
        require(recovered != address(0) && recovered == signer, BadSignature(signer));
    }

    /// @dev The id of the key that signed, zero when none did: 128 bytes are P-256, 64 or 65 ECDSA.
    function _signerOf(bytes32 digest, bytes calldata signature) private view returns (address signer) {
        if (signature.length == 128) {
            (bytes32 r, bytes32 s, bytes32 x, bytes32 y) =
                abi.decode(signature, (bytes32, bytes32, bytes32, bytes32));
            return _p256Signer(digest, r, s, x, y);
        }
        (uint8 v, bytes32 r_, bytes32 s_) = ECDSA.parseCalldata(signature);
        (signer,,) = ECDSA.tryRecover(digest, v, r_, s_);
    }

    /// @dev Over SHA-256 of the digest, for WebCrypto hashes whatever it signs. Takes a low s only.
    function _p256Signer(bytes32 digest, bytes32 r, bytes32 s, bytes32 x, bytes32 y)
        private
        view
        returns (address)
    {
        if (!P256.verifyNative(sha256(bytes.concat(digest)), r, s, x, y)) return address(0);
        return address(uint160(uint256(keccak256(bytes.concat(x, y)))));
    }

    /// @dev The payer may be a smart wallet. The gas cap bounds what one can burn, and what it can return.
    function _signedByOwner(address payer, address key, bytes32 digest, bytes calldata signature)
        private
        view
        returns (bool)
    {
        address signer = _signerOf(digest, signature);
        if (signer != address(0) && (signer == payer || signer == key)) return true;
        (bool ok, bytes memory answer) = payer.staticcall{gas: ERC1271_GAS}(
            abi.encodeCall(IERC1271.isValidSignature, (digest, signature))
        );
        return ok && answer.length >= 32
            && bytes32(answer) == bytes32(IERC1271.isValidSignature.selector);
    }

    /// @dev The smallest of what was signed, what is there, and what the terms let these roles take by now.
    function _due(
        Lease memory lease,
        LeaseTerms memory terms,
        uint88 cumulative,
        uint8 roles,
        uint88 allowance
    ) private view returns (uint88) {
        uint256 limit = Math.min(cumulative, lease.funded);
        uint256 until = lease.status == Status.Open ? block.timestamp : lease.exitAt;
        until = Math.min(until, terms.expiry);
        uint256 revokedAt = roles & METER == 0 ? 0 : meterRevokedAt[terms.meter];
        if (revokedAt > 0) until = Math.min(until, revokedAt);
        uint256 billed = terms.ratePerHour * (until - lease.openedAt) / 1 hours;
        limit = Math.min(limit, terms.upfront + billed);
        if (roles & CONSUMER == 0) limit = Math.min(limit, Math.max(terms.unattended, allowance));
        return uint88(limit);
    }

    /// @dev The fee is the difference of two floors, so that it does not depend on how often one settles.
    function _credit(
        bytes32 id,
        LeaseTerms memory terms,
        uint256 paid,
        uint256 newPaid,
        uint256 cumulative,
        uint8 roles,
        bytes32 evidence
    ) private {
        uint256 fee = newPaid * terms.feeBps / BPS - paid * terms.feeBps / BPS;
        if (fee > 0) owed[terms.feeRecipient] += fee;
        if (newPaid - paid > fee) owed[terms.provider] += newPaid - paid - fee;
        emit UsageSettled(
            id, terms.provider, cumulative, newPaid - paid, fee, newPaid, roles, evidence
        );
    }

    function _end(bytes32 id, LeaseTerms memory terms, Lease memory lease) private {
        uint88 rest = lease.funded - lease.paid;
        if (lease.fromCredit) {
            credits[terms.payer][terms.consumerSigner][terms.meter].amount += rest;
            emit CreditReturned(terms.payer, terms.consumerSigner, terms.meter, id, rest);
        } else if (rest > 0) {
            owed[terms.payer] += rest;
        }
        emit LeaseClosed(id, terms.payer, lease.paid, rest, lease.status);
        lease.status = Status.Closed;
        leases[id] = lease;
    }

    function _returnCredit(address payer, address spender, address meter) private {
        uint256 amount = credits[payer][spender][meter].amount;
        require(amount > 0, NothingOwed(payer));
        delete credits[payer][spender][meter];
        owed[payer] += amount;
        emit CreditReleased(payer, spender, meter, amount);
    }

    /// @dev An exit never delays what expiry gives, and expiry never what an exit gives.
    function _reclaimableAt(Lease memory lease, uint256 expiry) private view returns (uint256) {
        uint256 byExpiry = expiry + EXIT_DELAY;
        if (lease.status == Status.Open) return byExpiry;
        uint256 delay = lease.status == Status.ExitingCosigned ? COSIGNED_EXIT_DELAY : EXIT_DELAY;
        return Math.min(byExpiry, lease.exitAt + delay);
    }
}
