// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The types, calls, events and errors of the lease escrow
/// @notice Every call is for anyone to submit. What makes it valid is said beside it.
interface ILeaseEscrow {
    /// @notice Immutable terms; their EIP-712 hash is the lease's id. `payer` owns what is left,
    /// `consumerSigner` uses the lease, `provider` is paid, `providerSigner` is the key on the GPU machine (so
    /// that a stolen machine cannot redirect its pay), `meter` is the marketplace's key. `quote` hashes what
    /// was bought and makes the id unique. Amounts are token base units. An `upfront` of 2^88 - 1 means no cap
    /// by the clock, an `unattended` of 2^88 - 1 that the consumer need not sign its spending.
    struct LeaseTerms {
        address payer;
        address consumerSigner;
        address provider;
        address providerSigner;
        address meter;
        address feeRecipient;
        uint16 feeBps;
        uint88 upfront;
        uint88 unattended;
        uint64 ratePerHour;
        uint40 expiry;
        bytes32 quote;
    }

    enum Status {
        None,
        Open,
        Exiting,
        ExitingCosigned,
        Closed
    }

    /// @notice One storage slot. `paid` is the settled cumulative, fee included; `fromCredit` says that credit
    /// opened the lease, and so that its rest returns there.
    struct Lease {
        uint88 funded;
        uint88 paid;
        uint32 openedAt;
        uint32 exitAt;
        Status status;
        bool fromCredit;
    }

    /// @notice A payer's money for one spender (the `consumerSigner` of the leases it opens) and one meter.
    /// `releaseAt` is when a release takes effect; 0: none is pending.
    struct Credit {
        uint88 amount;
        uint40 releaseAt;
    }

    /// @notice A compact ECDSA signature (EIP-2098); of a P-256 key its r and s, the s in the lower half.
    struct Sig {
        bytes32 r;
        bytes32 vs;
    }

    /// @notice The consumer's P-256 key where its signer is one: `consumerSigner` is then the last 20 bytes of
    /// keccak256(x, y), and signs SHA-256 of the digest, as WebCrypto does. Zeros: the signer is an ECDSA key.
    struct PublicKey {
        bytes32 x;
        bytes32 y;
    }

    /// @notice Two signatures over one digest. `roles` is CONSUMER|PROVIDER (3), CONSUMER|METER (5) or
    /// PROVIDER|METER (6); `a` is of the lower bit, `b` of the higher.
    struct Pair {
        uint8 roles;
        Sig a;
        Sig b;
    }

    /// @notice The consumer's ceiling for usage that it does not sign itself: its signature over
    /// `Allowance(leaseId,cumulative)`. `cumulative` 0 means there is none; then `sig` is not read.
    struct Allowance {
        uint88 cumulative;
        Sig sig;
    }

    /// @notice An EIP-3009 ReceiveWithAuthorization of `from` to this contract over the sum of the amounts,
    /// whose nonce is `fundingNonce(leaseIds, amounts, salt)`, or `depositNonce` into credit: one signature
    /// commits to all terms and shares.
    struct Authorization {
        address from;
        bytes32 salt;
        uint256 validAfter;
        uint256 validBefore;
        bytes signature;
    }

    event LeaseOpened(
        bytes32 indexed leaseId, address indexed payer, address indexed provider, LeaseTerms terms
    );
    /// @param amount This funding's share.
    /// @param funded All fundings so far.
    event LeaseFunded(bytes32 indexed leaseId, address indexed from, uint256 amount, uint256 funded);
    /// @param cumulative What was signed.
    /// @param amount What it added to the settled cumulative, the fee included.
    /// @param fee The part of `amount` that goes to the fee recipient.
    /// @param paid The settled cumulative after it; below `cumulative` where a cap or the funding held it.
    event UsageSettled(
        bytes32 indexed leaseId,
        address indexed provider,
        uint256 cumulative,
        uint256 amount,
        uint256 fee,
        uint256 paid,
        uint8 roles,
        bytes32 evidence
    );
    event ExitRequested(bytes32 indexed leaseId, uint256 exitAt, uint256 reclaimableAt, bool cosigned);
    /// @param from The status before it.
    event LeaseClosed(
        bytes32 indexed leaseId, address indexed payer, uint256 paid, uint256 refunded, Status from
    );
    event Withdrawn(address indexed account, uint256 amount);
    event CreditDeposited(
        address indexed payer, address indexed spender, address indexed meter, uint256 amount
    );
    /// @param amount All that one allocation moved into leases; each has its LeaseFunded.
    event CreditAllocated(
        address indexed payer, address indexed spender, address indexed meter, uint256 amount
    );
    /// @param amount The rest of a lease that credit opened.
    event CreditReturned(
        address indexed payer,
        address indexed spender,
        address indexed meter,
        bytes32 leaseId,
        uint256 amount
    );
    event ReleaseRequested(
        address indexed payer, address indexed spender, address indexed meter, uint256 releaseAt
    );
    event CreditReleased(
        address indexed payer, address indexed spender, address indexed meter, uint256 amount
    );
    event MeterRevoked(address indexed meter);

    error NoToken(address token);
    error BadDelays(uint256 exitDelay, uint256 cosignedExitDelay);
    error LengthMismatch(uint256 terms, uint256 amounts);
    error ZeroAmount(bytes32 leaseId);
    error BadParty(address party);
    error SharedKey(address key);
    error FeeTooHigh(uint256 feeBps, uint256 limit);
    error TermTooLong(uint256 expiry, uint256 limit);
    error NotPayer(address from, address payer);
    error Expired(uint256 deadline);
    error BadStatus(Status status);
    error BadRoles(uint8 roles);
    error BadSignature(address signer);
    error Stale(uint256 paid);
    error AboveDue(uint256 cumulative, uint256 due);
    error TooEarly(uint256 notBefore);
    error TransferMismatch(uint256 expected, uint256 received);
    error NothingOwed(address account);
    error RevokedMeter(address meter);
    error OtherCredit(bytes32 leaseId);
    error NothingToAllocate();
    error InsufficientCredit(uint256 amount, uint256 needed);
    error ReleaseUsed(bytes32 digest);
    error ReleasePending(uint256 releaseAt);
    error NoRelease();

    /// @notice Opens and tops up leases from one EIP-3009 authorization, all or nothing.
    /// @dev Only the payer's money opens a lease; anyone may add to an open one, as a gift to its payer. A
    /// lease that is exiting, closed or past its expiry takes none: the call reverts and the USDC stays put.
    /// Trust: the token, to check signature, validity window and nonce (what arrives is checked here). The
    /// payer's wallet shows the nonce as an opaque word, so the payer trusts the program that computed it.
    function fund(LeaseTerms[] calldata terms, uint88[] calldata amounts, Authorization calldata auth)
        external;

    /// @notice Sets the payer's money aside for a spender and a meter, which open leases from it together.
    /// @dev The payer is who signs the authorization. Trust: the spender and the meter together may spend all of
    /// it, on terms that they choose; either alone can at most give it back to the payer.
    function deposit(address spender, address meter, uint88 amount, Authorization calldata auth) external;

    /// @notice Opens and tops up leases from the credit of their payer, consumerSigner and meter, which must be
    /// the same in all, up to the targets `fundedTo`. A target that is reached moves nothing, so that a replay
    /// changes nothing; when no target is left, it reverts.
    /// @dev Signed over `Allocate` by the spender (64 or 65 bytes, or 128 of a P-256 key: r, s, x, y) and by the
    /// meter, unless it has resigned. Trust: both together, with that credit. The meter also answers for not
    /// promising more than there is, for nothing is reserved before this call.
    function allocate(
        LeaseTerms[] calldata terms,
        uint88[] calldata fundedTo,
        uint40 validBefore,
        bytes calldata signature,
        Sig calldata meterSig
    ) external;

    /// @notice Gives all of a credit back to its payer: at once with the meter's signature, else (`meterSig` of
    /// zeros) it may be taken by `reclaimCredit` after RELEASE_DELAY, in which allocations still land.
    /// @dev Signed over `Release` by the payer (or by ERC-1271 of it) or by the spender, encoded as for
    /// `allocate`. Each release serves once. Trust: nobody, it can only give the payer its own money.
    function release(
        address payer,
        address spender,
        address meter,
        uint40 validBefore,
        bytes calldata signature,
        Sig calldata meterSig
    ) external;

    /// @notice Completes a release whose delay is over, with all that the credit then holds. Needs no signature.
    /// @dev Trust: nobody.
    function reclaimCredit(address payer, address spender, address meter) external;

    /// @notice Pays the provider (and the fee) what a newer `Usage` that two keys signed adds.
    /// @dev Cumulative: a replay or an older voucher reverts `Stale`, order does not matter, and a voucher
    /// above the funding or a cap pays the rest when submitted again later. `consumerKey` is read for the
    /// consumer's signature, wherever it stands. Trust: no key alone. Two together may pay the provider up to
    /// the clock's cap; without the consumer also up to what is unattended or allowed.
    function settle(
        LeaseTerms calldata terms,
        uint88 cumulative,
        bytes32 evidence,
        Pair calldata pair,
        Allowance calldata allowance,
        PublicKey calldata consumerKey
    ) external;

    /// @notice Ends a lease at once at its final cumulative; the rest goes back to the payer.
    /// @dev The provider's signature is required, for only the provider is hurt by a low final amount; it
    /// reverts rather than pay less than was signed, and `validBefore` bounds how long the offer stands. Trust:
    /// as for `settle`. The provider should let an offer die before it works on, for a lower one would end it.
    function close(
        LeaseTerms calldata terms,
        uint88 cumulative,
        bytes32 evidence,
        uint40 validBefore,
        Pair calldata pair,
        Allowance calldata allowance,
        PublicKey calldata consumerKey
    ) external;

    /// @notice Asks for the rest back: stops the lease's clock now and opens the delay in which the provider
    /// lands its last voucher. Cannot be withdrawn.
    /// @dev Signed over `Exit` by the consumer's key (64 or 65 bytes, or 128 of a P-256 key: r, s, x, y) or the
    /// payer, or by ERC-1271 of the payer. With the meter's signature over the same `Exit` the shorter delay
    /// holds, also when it comes later; an empty `meterSig` (zeros) asks without it. Trust: the provider trusts
    /// its own agent to land the last voucher inside the delay; the payer trusts nobody.
    function requestExit(LeaseTerms calldata terms, bytes calldata signature, Sig calldata meterSig)
        external;

    /// @notice After the exit's delay, or `EXIT_DELAY` after expiry, closes the lease and returns the rest to
    /// its payer, or to the credit that opened it. Needs no signature.
    /// @dev Trust: nobody.
    function reclaim(LeaseTerms calldata terms) external;

    /// @notice The meter resigns for good, when its key may be in other hands: no new leases and deposits name it,
    /// its co-signature counts for nothing, and for every pair that it is one of the clock stops now. Vouchers
    /// that it gave stay good for what they were worth by then.
    /// @dev Trust: nobody; a thief of the key can stop its use, and nothing else. Leases without a clock
    /// (`upfront` of 2^88 - 1) are held only by what they leave unattended.
    function revokeMeter(address meter, Sig calldata sig) external;

    /// @notice Sends an account all that it is owed. Anyone may call it, it pays only that account, and a
    /// party that USDC blacklists blocks nobody else.
    /// @dev Trust: the token, to pay whom it was told to.
    function withdraw(address account) external;

    /// @notice The id of a lease: the EIP-712 digest of its terms, so bound to this chain and contract.
    function leaseId(LeaseTerms calldata terms) external view returns (bytes32);

    /// @notice The EIP-3009 nonce that a funding must carry: hashStruct of `Funding`.
    function fundingNonce(bytes32[] memory leaseIds, uint88[] memory amounts, bytes32 salt)
        external
        pure
        returns (bytes32);

    /// @notice The EIP-3009 nonce that a deposit must carry: hashStruct of `Deposit`.
    function depositNonce(address payer, address spender, address meter, uint88 amount, bytes32 salt)
        external
        pure
        returns (bytes32);

    /// @notice What the paid cumulative would be if `roles` signed `cumulative` now, with `allowance` as the
    /// consumer's ceiling (0: none). Checks no signature; for a lease that is not live, what it has paid.
    function due(LeaseTerms calldata terms, uint88 cumulative, uint8 roles, uint88 allowance)
        external
        view
        returns (uint88);
}
