// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {P256} from "@openzeppelin/contracts/utils/cryptography/P256.sol";

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

/// @notice A consumer whose key is P-256, as WebCrypto and passkeys hold it.
contract P256Test is EscrowTest {
    uint256 private constant KEY = 0xC0FFEE;
    uint256 private constant OTHER = 0xBEEF;

    ILeaseEscrow.LeaseTerms private terms;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        terms = standardTerms();
        terms.consumerSigner = p256Id(KEY);
        terms.unattended = 0;
        id = open(terms, 20 * USDC);
    }

    function usageDigest(uint88 cumulative) private view returns (bytes32) {
        return typedDigest(usageHash(id, cumulative));
    }

    function consumerPair(uint8 roles, bytes32 digest)
        private
        pure
        returns (ILeaseEscrow.Pair memory pair)
    {
        pair = pairOf(roles, digest);
        pair.a = p256Signed(KEY, digest);
    }

    function test_signs_usage_with_either_other_party() public {
        escrow.settle(
            terms, 1, EVIDENCE, consumerPair(CONSUMER_PROVIDER, usageDigest(1)), noAllowance(), p256Key(KEY)
        );
        escrow.settle(
            terms, 2, EVIDENCE, consumerPair(CONSUMER_METER, usageDigest(2)), noAllowance(), p256Key(KEY)
        );
        expect(leaseOf(id).paid, 2);
    }

    function test_signs_an_allowance() public {
        bytes32 typeHash = keccak256("Allowance(bytes32 leaseId,uint88 cumulative)");
        bytes32 digest = typedDigest(keccak256(abi.encode(typeHash, id, uint88(400))));
        ILeaseEscrow.Allowance memory allowance =
            ILeaseEscrow.Allowance({cumulative: 400, sig: p256Signed(KEY, digest)});
        ILeaseEscrow.Pair memory pair = usagePair(terms, 900, PROVIDER_METER);
        refuse(ILeaseEscrow.BadSignature.selector, terms.consumerSigner);
        escrow.settle(terms, 900, EVIDENCE, pair, allowance, noKey());
        refuse(ILeaseEscrow.BadSignature.selector, terms.consumerSigner);
        escrow.settle(terms, 900, EVIDENCE, pair, allowance, p256Key(OTHER));
        escrow.settle(terms, 900, EVIDENCE, pair, allowance, p256Key(KEY));
        expect(leaseOf(id).paid, 400);
    }

    function test_signs_a_close() public {
        uint40 validBefore = uint40(START + 1 hours);
        bytes32 digest = typedDigest(closeHash(id, 5, validBefore));
        ILeaseEscrow.Pair memory pair = consumerPair(CONSUMER_PROVIDER, digest);
        escrow.close(terms, 5, EVIDENCE, validBefore, pair, noAllowance(), p256Key(KEY));
        expectStatus(id, ILeaseEscrow.Status.Closed);
    }

    function test_asks_for_an_exit() public {
        bytes memory forged = p256SignedBytes(OTHER, exitDigest(id));
        refuse(ILeaseEscrow.BadSignature.selector, payer);
        escrow.requestExit(terms, forged, noSig());
        escrow.requestExit(terms, p256SignedBytes(KEY, exitDigest(id)), noSig());
        expectStatus(id, ILeaseEscrow.Status.Exiting);
    }

    function test_spends_and_releases_credit() public {
        address meter = terms.meter;
        terms.quote = keccak256("from credit");
        escrow.deposit(
            terms.consumerSigner, meter, 9, depositAuthorization(terms.consumerSigner, meter, 9, "")
        );
        uint40 validBefore = uint40(START + 1 hours);
        bytes32 digest = allocateDigest(idsOf(only(terms)), only(4), validBefore);
        escrow.allocate(
            only(terms), only(4), validBefore, p256SignedBytes(KEY, digest), signed(METER_KEY, digest)
        );
        expect(leaseOf(idOf(terms)).funded, 4);
        digest = releaseDigest(terms.consumerSigner, meter, validBefore);
        escrow.release(
            payer,
            terms.consumerSigner,
            meter,
            validBefore,
            p256SignedBytes(KEY, digest),
            signed(METER_KEY, digest)
        );
        expect(escrow.owed(payer), 5);
    }

    function test_refuses_another_key_text_or_place() public {
        ILeaseEscrow.Pair memory pair = consumerPair(CONSUMER_PROVIDER, usageDigest(1));
        bytes4 refused = ILeaseEscrow.BadSignature.selector;
        refuse(refused, terms.consumerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
        refuse(refused, terms.consumerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), p256Key(OTHER));
        pair.a = p256Signed(OTHER, usageDigest(1));
        refuse(refused, terms.consumerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), p256Key(OTHER));
        pair.a = p256Signed(KEY, usageDigest(2));
        refuse(refused, terms.consumerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), p256Key(KEY));
    }

    /// Only a consumer may be P-256: agent and meter sign by ECDSA whatever key is shown.
    function test_refuses_the_other_roles() public {
        terms.quote = keccak256("provider with a P-256 key");
        terms.providerSigner = p256Id(OTHER);
        id = open(terms, USDC);
        ILeaseEscrow.Pair memory pair = usagePair(terms, 1, PROVIDER_METER);
        pair.a = p256Signed(OTHER, usageDigest(1));
        refuse(ILeaseEscrow.BadSignature.selector, terms.providerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), p256Key(OTHER));
    }

    /// The digest itself, unhashed, is not what WebCrypto signs.
    function test_signs_over_sha256() public {
        ILeaseEscrow.Pair memory pair = consumerPair(CONSUMER_PROVIDER, usageDigest(1));
        (bytes32 r, bytes32 s) = vm.signP256(KEY, usageDigest(1));
        if (uint256(s) > P256_ORDER / 2) s = bytes32(P256_ORDER - uint256(s));
        pair.a = ILeaseEscrow.Sig({r: r, vs: s});
        refuse(ILeaseEscrow.BadSignature.selector, terms.consumerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), p256Key(KEY));
    }

    function test_attack14_refuses_a_high_s_of_p256() public {
        ILeaseEscrow.Pair memory pair = consumerPair(CONSUMER_PROVIDER, usageDigest(1));
        pair.a.vs = bytes32(P256_ORDER - uint256(pair.a.vs));
        refuse(ILeaseEscrow.BadSignature.selector, terms.consumerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), p256Key(KEY));
    }

    /// The precompile is of the OP Stack since Fjord; where it lacks, a P-256 voucher must not pass for one.
    function test_this_chain_has_the_precompile() public view {
        ILeaseEscrow.Sig memory sig = p256Signed(KEY, "text");
        ILeaseEscrow.PublicKey memory key = p256Key(KEY);
        require(
            P256.verifyNative(sha256(abi.encode(bytes32("text"))), sig.r, sig.vs, key.x, key.y),
            NotTrue("the precompile verifies")
        );
    }
}
