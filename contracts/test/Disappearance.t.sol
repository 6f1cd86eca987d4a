// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

/// @notice Who is gone, and what becomes of the money: the table of docs/security.md.
contract DisappearanceTest is EscrowTest {
    ILeaseEscrow.LeaseTerms private terms;

    function setUp() public override {
        super.setUp();
        terms = standardTerms();
        open(terms, 20 * USDC);
        vm.warp(START + 2 hours);
    }

    function expectEnd(uint256 paid, uint256 refunded) private view {
        expect(escrow.owed(PROVIDER) + escrow.owed(FEE_RECIPIENT), paid);
        expect(escrow.owed(payer), refunded);
        expectStatus(idOf(terms), ILeaseEscrow.Status.Closed);
    }

    function test_gone_meter_consumer_and_provider_end_it_together() public {
        settle(terms, 3 * USDC, CONSUMER_PROVIDER);
        close(terms, 4 * USDC, CONSUMER_PROVIDER);
        expectEnd(4 * USDC, 16 * USDC);
    }

    function test_gone_meter_and_no_agreement_the_last_pair_pays_and_the_rest_returns() public {
        ILeaseEscrow.Pair memory last = usagePair(terms, 3 * USDC, PROVIDER_METER);
        exit(terms, false);
        vm.warp(START + 25 hours);
        escrow.settle(terms, 3 * USDC, EVIDENCE, last, noAllowance(), noKey());
        vm.warp(START + 26 hours);
        escrow.reclaim(terms);
        expectEnd(3 * USDC, 17 * USDC);
    }

    function test_gone_provider_consumer_and_meter_settle_and_leave_within_the_hour() public {
        settle(terms, 3 * USDC, CONSUMER_METER);
        exit(terms, true);
        vm.warp(START + 3 hours);
        escrow.reclaim(terms);
        expectEnd(3 * USDC, 17 * USDC);
    }

    function test_gone_consumer_provider_and_meter_end_it_within_what_is_unattended() public {
        settle(terms, 3 * USDC, PROVIDER_METER);
        close(terms, 5 * USDC, PROVIDER_METER);
        expectEnd(5 * USDC, 15 * USDC);
    }

    function test_gone_consumer_and_meter_the_provider_lands_its_last_pair_then_expiry() public {
        ILeaseEscrow.Pair memory last = usagePair(terms, 3 * USDC, CONSUMER_PROVIDER);
        vm.warp(terms.expiry + 23 hours);
        escrow.settle(terms, 3 * USDC, EVIDENCE, last, noAllowance(), noKey());
        vm.warp(terms.expiry + 24 hours);
        escrow.reclaim(terms);
        expectEnd(3 * USDC, 17 * USDC);
    }

    function test_gone_provider_and_meter_the_consumer_alone_leaves_in_a_day() public {
        exit(terms, false);
        vm.warp(START + 26 hours);
        escrow.reclaim(terms);
        expectEnd(0, 20 * USDC);
    }

    function test_gone_consumer_and_provider_anyone_refunds_a_day_after_expiry() public {
        vm.warp(terms.expiry + 24 hours);
        escrow.reclaim(terms);
        expectEnd(0, 20 * USDC);
    }

    function test_gone_consumer_key_the_wallet_itself_leaves() public {
        escrow.requestExit(terms, signedBytes(PAYER_KEY, exitDigest(idOf(terms))), noSig());
        vm.warp(START + 26 hours);
        escrow.reclaim(terms);
        expectEnd(0, 20 * USDC);
    }

    function test_gone_meter_credit_returns_in_an_hour() public {
        deposit(5 * USDC, "credit");
        release(PAYER_KEY, false);
        vm.warp(START + 3 hours);
        escrow.reclaimCredit(payer, vm.addr(CONSUMER_KEY), vm.addr(METER_KEY));
        expect(escrow.owed(payer), 5 * USDC);
    }

    function test_gone_spender_the_payer_takes_its_credit_back() public {
        deposit(5 * USDC, "credit");
        release(PAYER_KEY, true);
        expect(escrow.owed(payer), 5 * USDC);
    }

    function test_gone_payer_the_spender_can_give_the_credit_back() public {
        deposit(5 * USDC, "credit");
        release(CONSUMER_KEY, false);
        vm.warp(START + 3 hours);
        escrow.reclaimCredit(payer, vm.addr(CONSUMER_KEY), vm.addr(METER_KEY));
        escrow.withdraw(payer);
        expect(escrow.owed(payer), 0);
    }
}
