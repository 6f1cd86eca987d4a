// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract CloseTest is EscrowTest {
    ILeaseEscrow.LeaseTerms internal terms;
    bytes32 internal id;
    uint40 internal constant LATER = uint40(START + 12 hours);

    function setUp() public override {
        super.setUp();
        terms = standardTerms();
        id = open(terms, 20 * USDC);
    }

    function refuseClose(uint88 cumulative, uint8 roles, bytes memory reason) internal {
        ILeaseEscrow.Pair memory pair = closePair(terms, cumulative, LATER, roles);
        vm.expectRevert(reason);
        escrow.close(terms, cumulative, EVIDENCE, LATER, pair, noAllowance(), noKey());
    }

    function test_pays_the_final_cumulative_and_refunds_the_rest() public {
        vm.warp(START + 5 hours);
        settle(terms, 4 * USDC, PROVIDER_METER);
        ILeaseEscrow.Pair memory pair = closePair(terms, 7 * USDC, LATER, CONSUMER_PROVIDER);
        vm.expectEmit();
        emit ILeaseEscrow.UsageSettled(
            id, PROVIDER, 7 * USDC, 3 * USDC, 150_000, 7 * USDC, CONSUMER_PROVIDER, EVIDENCE
        );
        vm.expectEmit();
        emit ILeaseEscrow.LeaseClosed(id, payer, 7 * USDC, 13 * USDC, ILeaseEscrow.Status.Open);
        escrow.close(terms, 7 * USDC, EVIDENCE, LATER, pair, noAllowance(), noKey());
        expect(escrow.owed(PROVIDER), 6_650_000);
        expect(escrow.owed(FEE_RECIPIENT), 350_000);
        expect(escrow.owed(payer), 13 * USDC);
        expectStatus(id, ILeaseEscrow.Status.Closed);
    }

    function test_takes_provider_and_meter_within_what_is_unattended_or_allowed() public {
        vm.warp(START + 10 hours);
        refuseClose(
            11 * USDC,
            PROVIDER_METER,
            abi.encodeWithSelector(ILeaseEscrow.AboveDue.selector, 11 * USDC, 10 * USDC)
        );
        ILeaseEscrow.Pair memory pair = closePair(terms, 11 * USDC, LATER, PROVIDER_METER);
        escrow.close(terms, 11 * USDC, EVIDENCE, LATER, pair, allowanceOf(terms, 11 * USDC), noKey());
        expect(escrow.owed(payer), 9 * USDC);
    }

    /// SPEC MON-3.
    function test_never_clips_what_the_provider_signed() public {
        vm.warp(START + 1 hours);
        refuseClose(
            4 * USDC,
            CONSUMER_PROVIDER,
            abi.encodeWithSelector(ILeaseEscrow.AboveDue.selector, 4 * USDC, 3 * USDC)
        );
        vm.warp(START + 11 hours);
        refuseClose(
            21 * USDC,
            CONSUMER_PROVIDER,
            abi.encodeWithSelector(ILeaseEscrow.AboveDue.selector, 21 * USDC, 20 * USDC)
        );
        expectStatus(id, ILeaseEscrow.Status.Open);
    }

    function test_needs_the_provider() public {
        refuseClose(
            0, CONSUMER_METER, abi.encodeWithSelector(ILeaseEscrow.BadRoles.selector, CONSUMER_METER)
        );
    }

    function test_attack09_refuses_every_other_mask() public {
        for (uint256 roles; roles < 256; ++roles) {
            if (roles == 3 || roles == 6) continue;
            ILeaseEscrow.Pair memory pair = closePair(terms, 0, LATER, CONSUMER_PROVIDER);
            pair.roles = uint8(roles);
            refuse(ILeaseEscrow.BadRoles.selector, roles);
            escrow.close(terms, 0, EVIDENCE, LATER, pair, noAllowance(), noKey());
        }
    }

    function test_stands_until_its_validity_ends() public {
        ILeaseEscrow.Pair memory pair = closePair(terms, 0, LATER, CONSUMER_PROVIDER);
        vm.warp(LATER);
        refuse(ILeaseEscrow.Expired.selector, LATER);
        escrow.close(terms, 0, EVIDENCE, LATER, pair, noAllowance(), noKey());
        refuse(ILeaseEscrow.BadSignature.selector, terms.consumerSigner);
        escrow.close(terms, 0, EVIDENCE, LATER + 1, pair, noAllowance(), noKey());
        vm.warp(LATER - 1);
        escrow.close(terms, 0, EVIDENCE, LATER, pair, noAllowance(), noKey());
    }

    function test_attack15_refuses_an_offer_older_than_what_was_settled() public {
        settle(terms, 500_000, PROVIDER_METER);
        refuseClose(499_999, CONSUMER_PROVIDER, abi.encodeWithSelector(ILeaseEscrow.Stale.selector, 500_000));
        close(terms, 500_000, CONSUMER_PROVIDER);
        expect(escrow.owed(payer), 20 * USDC - 500_000);
    }

    function test_attack13_refuses_usage_and_exit_signatures_as_close() public {
        bytes32[2] memory digests = [typedDigest(usageHash(id, 0)), exitDigest(id)];
        for (uint256 i; i < 2; ++i) {
            ILeaseEscrow.Pair memory pair = pairOf(PROVIDER_METER, digests[i]);
            refuse(ILeaseEscrow.BadSignature.selector, terms.providerSigner);
            escrow.close(terms, 0, EVIDENCE, LATER, pair, noAllowance(), noKey());
        }
    }

    /// An offer to end at 2 that was never used must not undo the usage that both signed since.
    function test_a_stale_close_after_more_usage_is_refused() public {
        vm.warp(START + 2 hours);
        ILeaseEscrow.Pair memory early = closePair(terms, 2 * USDC, LATER, CONSUMER_PROVIDER);
        settle(terms, 3 * USDC, CONSUMER_PROVIDER);
        refuse(ILeaseEscrow.Stale.selector, 3 * USDC);
        escrow.close(terms, 2 * USDC, EVIDENCE, LATER, early, noAllowance(), noKey());
        expectStatus(id, ILeaseEscrow.Status.Open);
    }

    function test_refuses_an_unsigned_allowance() public {
        vm.warp(START + 10 hours);
        ILeaseEscrow.Pair memory pair = closePair(terms, 11 * USDC, LATER, PROVIDER_METER);
        ILeaseEscrow.Allowance memory forged = allowanceOf(terms, 10 * USDC);
        forged.cumulative = 11 * USDC;
        refuse(ILeaseEscrow.BadSignature.selector, terms.consumerSigner);
        escrow.close(terms, 11 * USDC, EVIDENCE, LATER, pair, forged, noKey());
    }

    function test_works_while_exiting() public {
        exit(terms, true);
        close(terms, 1 * USDC, CONSUMER_PROVIDER);
        expect(escrow.owed(payer), 19 * USDC);
    }

    function test_attack22_is_final() public {
        close(terms, 0, CONSUMER_PROVIDER);
        bytes memory closed =
            abi.encodeWithSelector(ILeaseEscrow.BadStatus.selector, ILeaseEscrow.Status.Closed);
        refuseClose(0, CONSUMER_PROVIDER, closed);
        vm.warp(terms.expiry + 30 days);
        vm.expectRevert(closed);
        escrow.reclaim(terms);
        expect(escrow.owed(payer), 20 * USDC);
    }
}
