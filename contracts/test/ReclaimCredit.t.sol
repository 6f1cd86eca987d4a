// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract ReclaimCreditTest is EscrowTest {
    address private spender = vm.addr(CONSUMER_KEY);
    address private meter = vm.addr(METER_KEY);

    function setUp() public override {
        super.setUp();
        deposit(100 * USDC, "credit");
    }

    function test_attack20_completes_a_release_on_time_and_not_before() public {
        release(PAYER_KEY, false);
        vm.warp(START + 1 hours - 1);
        refuse(ILeaseEscrow.TooEarly.selector, START + 1 hours);
        escrow.reclaimCredit(payer, spender, meter);
        vm.warp(START + 1 hours);
        vm.expectEmit();
        emit ILeaseEscrow.CreditReleased(payer, spender, meter, 100 * USDC);
        escrow.reclaimCredit(payer, spender, meter);
        expect(escrow.owed(payer), 100 * USDC);
        expect(credit().amount, 0);
        expect(credit().releaseAt, 0);
    }

    function test_needs_a_release() public {
        refuse(ILeaseEscrow.NoRelease.selector);
        escrow.reclaimCredit(payer, spender, meter);
        release(PAYER_KEY, false);
        vm.warp(START + 1 hours);
        escrow.reclaimCredit(payer, spender, meter);
        refuse(ILeaseEscrow.NoRelease.selector);
        escrow.reclaimCredit(payer, spender, meter);
    }

    /// What spender and meter had promised still lands inside the delay, and its rest goes the way of the credit.
    function test_takes_what_is_left_then() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        release(PAYER_KEY, false);
        vm.warp(START + 59 minutes);
        allocate(only(terms), only(100 * USDC));
        vm.warp(START + 1 hours);
        refuse(ILeaseEscrow.NothingOwed.selector, payer);
        escrow.reclaimCredit(payer, spender, meter);
        close(terms, 1 * USDC, CONSUMER_PROVIDER);
        escrow.reclaimCredit(payer, spender, meter);
        expect(escrow.owed(payer), 99 * USDC);
    }

    function test_touches_no_other_credit() public {
        address other = vm.addr(OTHER_KEY);
        escrow.deposit(spender, other, 7, depositAuthorization(spender, other, 7, ""));
        escrow.deposit(other, meter, 8, depositAuthorization(other, meter, 8, ""));
        release(PAYER_KEY, true);
        expect(creditOf(spender, other).amount, 7);
        expect(creditOf(other, meter).amount, 8);
        expect(escrow.owed(payer), 100 * USDC);
    }
}
