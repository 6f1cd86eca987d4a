// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {LeaseEscrow} from "../src/LeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract SettleTest is EscrowTest {
    ILeaseEscrow.LeaseTerms internal terms;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        terms = standardTerms();
        id = open(terms, 20 * USDC);
    }

    function test_pays_provider_and_fee_for_each_pair() public {
        vm.warp(START + 5 hours);
        settle(terms, 1 * USDC, CONSUMER_PROVIDER);
        settle(terms, 2 * USDC, CONSUMER_METER);
        settle(terms, 3 * USDC, PROVIDER_METER);
        expect(escrow.owed(PROVIDER), 2_850_000);
        expect(escrow.owed(FEE_RECIPIENT), 150_000);
        expect(leaseOf(id).paid, 3 * USDC);
    }

    function test_tells_an_indexer_what_was_signed_and_what_it_paid() public {
        ILeaseEscrow.Pair memory pair = usagePair(terms, 9 * USDC, CONSUMER_PROVIDER);
        vm.expectEmit();
        emit ILeaseEscrow.UsageSettled(
            id, PROVIDER, 9 * USDC, 1 * USDC, 50_000, 1 * USDC, CONSUMER_PROVIDER, EVIDENCE
        );
        escrow.settle(terms, 9 * USDC, EVIDENCE, pair, noAllowance(), noKey());
    }

    function test_attack15_refuses_a_replay_and_an_older_voucher() public {
        settle(terms, 600_000, PROVIDER_METER);
        ILeaseEscrow.Pair memory same = usagePair(terms, 600_000, PROVIDER_METER);
        ILeaseEscrow.Pair memory older = usagePair(terms, 500_000, CONSUMER_PROVIDER);
        refuse(ILeaseEscrow.Stale.selector, 600_000);
        escrow.settle(terms, 600_000, EVIDENCE, same, noAllowance(), noKey());
        refuse(ILeaseEscrow.Stale.selector, 600_000);
        escrow.settle(terms, 500_000, EVIDENCE, older, noAllowance(), noKey());
    }

    function test_pays_the_rest_of_a_voucher_above_the_funding_after_a_top_up() public {
        ILeaseEscrow.LeaseTerms memory uncapped = uncappedTerms();
        uncapped.quote = keccak256("another");
        open(uncapped, 5 * USDC);
        settle(uncapped, 8 * USDC, PROVIDER_METER);
        expect(leaseOf(idOf(uncapped)).paid, 5 * USDC);
        escrow.fund(
            only(uncapped), only(5 * USDC), authorize(PAYER_KEY, only(uncapped), only(5 * USDC), "more")
        );
        settle(uncapped, 8 * USDC, PROVIDER_METER);
        expect(leaseOf(idOf(uncapped)).paid, 8 * USDC);
    }

    /// A marketplace that runs a sybil provider holds two of three keys; so does a thief of the session key
    /// with a provider. Right after the funding neither gets more than `upfront`.
    /// SPEC MON-2.
    function test_attack16_caps_every_pair_by_the_clock() public {
        uint8[3] memory pairs = [CONSUMER_PROVIDER, CONSUMER_METER, PROVIDER_METER];
        for (uint256 i; i < 3; ++i) {
            terms.quote = bytes32(i);
            bytes32 lease = open(terms, 20 * USDC);
            settle(terms, 20 * USDC, pairs[i]);
            expect(leaseOf(lease).paid, 1 * USDC);
        }
        vm.warp(START + 90 minutes);
        settle(terms, 20 * USDC, PROVIDER_METER);
        expect(leaseOf(id).paid, 0);
        expect(leaseOf(idOf(terms)).paid, 4 * USDC);
    }

    /// A serverless lease bills only what its consumer allowed, however long it lies idle.
    function test_attack17_a_sybil_provider_with_the_meter_bills_an_idle_serverless_lease_for_nothing() public {
        terms.quote = keccak256("serverless");
        terms.unattended = 0;
        bytes32 lease = open(terms, 20 * USDC);
        vm.warp(START + 23 hours);
        ILeaseEscrow.Pair memory pair = usagePair(terms, 20 * USDC, PROVIDER_METER);
        refuse(ILeaseEscrow.Stale.selector, 0);
        escrow.settle(terms, 20 * USDC, EVIDENCE, pair, noAllowance(), noKey());
        uint40 validBefore = uint40(START + 24 hours);
        pair = closePair(terms, 1, validBefore, PROVIDER_METER);
        refuse(ILeaseEscrow.AboveDue.selector, 1, 0);
        escrow.close(terms, 1, EVIDENCE, validBefore, pair, noAllowance(), noKey());
        expect(leaseOf(lease).paid, 0);
    }

    /// End to end: right after the funding the two get the upfront, later no more than what is unattended.
    function test_attack17_a_sybil_marketplace_drains_no_deposit() public {
        settle(terms, 20 * USDC, PROVIDER_METER);
        expect(leaseOf(id).paid, 1 * USDC);
        vm.warp(START + 23 hours);
        settle(terms, 20 * USDC, PROVIDER_METER);
        expect(leaseOf(id).paid, 10 * USDC);
        exit(terms, false);
        vm.warp(START + 47 hours);
        escrow.reclaim(terms);
        expect(escrow.owed(payer), 10 * USDC);
    }

    function test_attack16_a_lease_without_upfront_and_rate_pays_no_pair() public {
        terms.quote = keccak256("free");
        (terms.upfront, terms.ratePerHour) = (0, 0);
        open(terms, 20 * USDC);
        vm.warp(START + 23 hours);
        ILeaseEscrow.Pair memory pair = usagePair(terms, 1, CONSUMER_PROVIDER);
        refuse(ILeaseEscrow.Stale.selector, 0);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
    }

    function testFuzz_attack16_no_time_passes_the_cap(uint32 elapsed, uint64 rate, uint88 upfront) public {
        terms.quote = keccak256("fuzz");
        terms.ratePerHour = rate;
        terms.upfront = uint88(within(upfront, 0, 100_000 * USDC));
        bytes32 lease = open(terms, 100_000 * USDC);
        vm.warp(START + within(elapsed, 0, 24 hours));
        ILeaseEscrow.Pair memory pair = usagePair(terms, NO_CAP, CONSUMER_PROVIDER);
        (bool ok,) = address(escrow).call(
            abi.encodeCall(LeaseEscrow.settle, (terms, NO_CAP, EVIDENCE, pair, noAllowance(), noKey()))
        );
        uint256 cap = terms.upfront + uint256(rate) * (block.timestamp - START) / 1 hours;
        if (cap > 100_000 * USDC) cap = 100_000 * USDC;
        require(ok == (cap > 0), NotTrue("pays when there is anything due"));
        expect(leaseOf(lease).paid, cap);
    }

    /// An exit does not make a newer voucher that came first unpaid, nor an older one payable.
    function test_attack15_an_older_voucher_wins_no_race_with_an_exit() public {
        ILeaseEscrow.Pair memory older = usagePair(terms, 500_000, PROVIDER_METER);
        settle(terms, 600_000, PROVIDER_METER);
        exit(terms, true);
        refuse(ILeaseEscrow.Stale.selector, 600_000);
        escrow.settle(terms, 500_000, EVIDENCE, older, noAllowance(), noKey());
    }

    function test_attack16_freezes_the_clock_at_exit() public {
        vm.warp(START + 1 hours);
        exit(terms, false);
        vm.warp(START + 20 hours);
        settle(terms, 20 * USDC, CONSUMER_PROVIDER);
        expect(leaseOf(id).paid, 3 * USDC);
    }

    function test_attack16_freezes_the_clock_at_expiry() public {
        terms.quote = keccak256("long");
        terms.expiry = uint40(START + 3 hours);
        bytes32 lease = open(terms, 20 * USDC);
        vm.warp(START + 20 hours);
        settle(terms, 20 * USDC, CONSUMER_PROVIDER);
        expect(leaseOf(lease).paid, 7 * USDC);
    }

    function test_pays_nothing_unattended_without_an_allowance() public {
        terms.unattended = 0;
        bytes32 lease = open(terms, 20 * USDC);
        ILeaseEscrow.Pair memory pair = usagePair(terms, 900_000, PROVIDER_METER);
        refuse(ILeaseEscrow.Stale.selector, 0);
        escrow.settle(terms, 900_000, EVIDENCE, pair, noAllowance(), noKey());
        escrow.settle(terms, 900_000, EVIDENCE, pair, allowanceOf(terms, 400_000), noKey());
        expect(leaseOf(lease).paid, 400_000);
        settle(terms, 700_000, CONSUMER_PROVIDER);
        expect(leaseOf(lease).paid, 700_000);
    }

    /// SPEC MON-2.
    function test_takes_the_larger_of_unattended_and_allowance() public {
        vm.warp(START + 20 hours);
        ILeaseEscrow.Pair memory pair = usagePair(terms, 15 * USDC, PROVIDER_METER);
        escrow.settle(terms, 15 * USDC, EVIDENCE, pair, allowanceOf(terms, 4 * USDC), noKey());
        expect(leaseOf(id).paid, 10 * USDC);
        escrow.settle(terms, 15 * USDC, EVIDENCE, pair, allowanceOf(terms, 12 * USDC), noKey());
        expect(leaseOf(id).paid, 12 * USDC);
    }

    function test_refuses_an_allowance_of_another_amount_lease_or_key() public {
        ILeaseEscrow.Pair memory pair = usagePair(terms, 900_000, PROVIDER_METER);
        ILeaseEscrow.Allowance memory raised = allowanceOf(terms, 5);
        raised.cumulative = 6;
        ILeaseEscrow.LeaseTerms memory other = standardTerms();
        other.quote = keccak256("other lease");
        ILeaseEscrow.Allowance memory elsewhere = allowanceOf(other, 5);
        ILeaseEscrow.Allowance memory forged = allowanceOf(terms, 5);
        forged.sig = pair.b;
        ILeaseEscrow.Allowance[3] memory bad = [raised, elsewhere, forged];
        for (uint256 i; i < 3; ++i) {
            refuse(ILeaseEscrow.BadSignature.selector, terms.consumerSigner);
            escrow.settle(terms, 900_000, EVIDENCE, pair, bad[i], noKey());
        }
    }

    function testFuzz_attack09_one_key_is_never_two_votes(uint8 roles, uint8 which, uint88 cumulative) public {
        uint256 key = [CONSUMER_KEY, AGENT_KEY, METER_KEY, OTHER_KEY][which % 4];
        bytes32 digest = typedDigest(usageHash(id, cumulative));
        ILeaseEscrow.Pair memory pair =
            ILeaseEscrow.Pair({roles: roles, a: signed(key, digest), b: signed(key, digest)});
        (bool ok,) = address(escrow).call(
            abi.encodeCall(LeaseEscrow.settle, (terms, cumulative, EVIDENCE, pair, noAllowance(), noKey()))
        );
        require(!ok, NotTrue("refused"));
        expect(leaseOf(id).paid, 0);
    }

    function test_attack09_refuses_every_mask_that_is_no_pair() public {
        for (uint256 roles; roles < 256; ++roles) {
            if (roles == 3 || roles == 5 || roles == 6) continue;
            ILeaseEscrow.Pair memory pair = usagePair(terms, 1, CONSUMER_PROVIDER);
            pair.roles = uint8(roles);
            refuse(ILeaseEscrow.BadRoles.selector, roles);
            escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
        }
    }

    function test_attack11_names_the_signer_that_is_missing() public {
        ILeaseEscrow.Pair memory pair = usagePair(terms, 1, CONSUMER_PROVIDER);
        (ILeaseEscrow.Sig memory a, ILeaseEscrow.Sig memory b) = (pair.a, pair.b);
        pair.a = noSig();
        refuse(ILeaseEscrow.BadSignature.selector, terms.consumerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
        (pair.a, pair.b) = (a, a);
        refuse(ILeaseEscrow.BadSignature.selector, terms.providerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
        (pair.roles, pair.b) = (CONSUMER_METER, b);
        refuse(ILeaseEscrow.BadSignature.selector, terms.meter);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
    }

    function test_attack12_refuses_another_lease_contract_or_chain() public {
        bytes32[3] memory digests = [
            typedDigest(usageHash(keccak256("other"), 1)),
            typedDigest(usageHash(id, 1), address(usdc), block.chainid),
            typedDigest(usageHash(id, 1), address(escrow), block.chainid + 1)
        ];
        for (uint256 i; i < 3; ++i) {
            ILeaseEscrow.Pair memory pair = pairOf(PROVIDER_METER, digests[i]);
            refuse(ILeaseEscrow.BadSignature.selector, terms.providerSigner);
            escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
        }
    }

    function test_attack12_is_worthless_on_a_fork_with_another_chain_id() public {
        ILeaseEscrow.Pair memory pair = usagePair(terms, 1, PROVIDER_METER);
        vm.chainId(block.chainid + 1);
        // The id binds the chain, so there the lease does not exist.
        refuseStatus(ILeaseEscrow.Status.None);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
    }

    function test_attack13_refuses_close_signatures_as_usage() public {
        ILeaseEscrow.Pair memory pair = closePair(terms, 1, uint40(START + 1 hours), PROVIDER_METER);
        refuse(ILeaseEscrow.BadSignature.selector, terms.providerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
    }

    function test_refuses_other_evidence() public {
        ILeaseEscrow.Pair memory pair = usagePair(terms, 1, PROVIDER_METER);
        refuse(ILeaseEscrow.BadSignature.selector, terms.providerSigner);
        escrow.settle(terms, 1, keccak256("forged"), pair, noAllowance(), noKey());
    }

    /// EIP-2: (r, n - s) with the other parity recovers the same key; taking it would give a signature a twin.
    function test_attack14_refuses_a_high_s() public {
        bytes32 digest = typedDigest(usageHash(id, 1));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(AGENT_KEY, digest);
        uint256 n = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        bytes32 high = bytes32(n - uint256(s));
        ILeaseEscrow.Pair memory pair = pairOf(PROVIDER_METER, digest);
        // Bit 255 of a high s is set, so that in the compact form it reads as parity with another s.
        pair.a = ILeaseEscrow.Sig({r: r, vs: v == 27 ? high | bytes32(uint256(1) << 255) : high});
        refuse(ILeaseEscrow.BadSignature.selector, terms.providerSigner);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
    }

    /// EIP-7702: code on a signer's account changes nothing, and is never called.
    function test_attack19_takes_the_key_of_a_signer_that_has_code() public {
        vm.etch(terms.providerSigner, hex"5f5ffd");
        vm.etch(terms.meter, hex"5f5ffd");
        settle(terms, 1, PROVIDER_METER);
        expect(leaseOf(id).paid, 1);
    }

    function test_refuses_a_lease_that_is_not_live() public {
        close(terms, 0, CONSUMER_PROVIDER);
        ILeaseEscrow.Pair memory pair = usagePair(terms, 1, PROVIDER_METER);
        refuseStatus(ILeaseEscrow.Status.Closed);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
        terms.quote = keccak256("never funded");
        pair = usagePair(terms, 1, PROVIDER_METER);
        refuseStatus(ILeaseEscrow.Status.None);
        escrow.settle(terms, 1, EVIDENCE, pair, noAllowance(), noKey());
    }

    /// However often one settles, the fee is that of the sum: rounding never adds up.
    function testFuzz_attack27_fee_does_not_depend_on_the_steps(uint16 feeBps, uint32[6] memory steps) public {
        ILeaseEscrow.LeaseTerms memory uncapped = uncappedTerms();
        uncapped.feeBps = uint16(within(feeBps, 0, 5_000));
        uncapped.quote = keccak256("steps");
        open(uncapped, 100_000 * USDC);
        uint88 cumulative;
        for (uint256 i; i < steps.length; ++i) {
            cumulative += uint88(within(steps[i], 1, 1_000 * USDC));
            settle(uncapped, cumulative, PROVIDER_METER);
        }
        uint256 fee = uint256(cumulative) * uncapped.feeBps / 10_000;
        expect(escrow.owed(FEE_RECIPIENT), fee);
        expect(escrow.owed(PROVIDER), cumulative - fee);
    }
}
