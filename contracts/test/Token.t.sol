// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

/// @notice What USDC's own powers, pause and blacklist, do to a lease: only whom they name waits.
contract TokenTest is EscrowTest {
    ILeaseEscrow.LeaseTerms private terms;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        terms = standardTerms();
        id = open(terms, 20 * USDC);
        vm.warp(START + 2 hours);
    }

    function expectWaits(address account) private {
        refuse("Blacklistable: account is blacklisted");
        escrow.withdraw(account);
    }

    function expectPaid(address account, uint256 amount) private {
        uint256 before = usdc.balanceOf(account);
        escrow.withdraw(account);
        expect(usdc.balanceOf(account) - before, amount);
    }

    function test_attack25_a_blacklisted_payer_stops_no_provider() public {
        usdc.blacklist(payer);
        settle(terms, 2 * USDC, PROVIDER_METER);
        close(terms, 4 * USDC, PROVIDER_METER);
        expectWaits(payer);
        expectPaid(PROVIDER, 3_800_000);
        expectPaid(FEE_RECIPIENT, 200_000);
        usdc.unBlacklist(payer);
        expectPaid(payer, 16 * USDC);
    }

    function test_attack25_a_blacklisted_provider_stops_no_refund() public {
        usdc.blacklist(PROVIDER);
        settle(terms, 4 * USDC, PROVIDER_METER);
        exit(terms, true);
        vm.warp(START + 3 hours);
        escrow.reclaim(terms);
        expectWaits(PROVIDER);
        expectPaid(payer, 16 * USDC);
        expectPaid(FEE_RECIPIENT, 200_000);
    }

    function test_attack25_a_blacklisted_fee_recipient_stops_nobody() public {
        usdc.blacklist(FEE_RECIPIENT);
        close(terms, 4 * USDC, CONSUMER_PROVIDER);
        expectWaits(FEE_RECIPIENT);
        expectPaid(PROVIDER, 3_800_000);
        expectPaid(payer, 16 * USDC);
    }

    function test_attack25_a_blacklisted_payer_holds_up_no_credit_of_others() public {
        deposit(10 * USDC, "credit");
        usdc.blacklist(payer);
        release(PAYER_KEY, true);
        expectWaits(payer);
        settle(terms, 4 * USDC, PROVIDER_METER);
        expectPaid(PROVIDER, 3_800_000);
    }

    /// Nobody can mend this: the money waits for the token. The books go on meanwhile.
    function test_while_the_token_is_paused_books_go_on_and_money_waits() public {
        usdc.pause();
        close(terms, 4 * USDC, CONSUMER_PROVIDER);
        refuse("Pausable: paused");
        escrow.withdraw(PROVIDER);
        usdc.unpause();
        expectPaid(PROVIDER, 3_800_000);
    }

    /// Nor this.
    function test_while_the_escrow_is_blacklisted_books_go_on_and_money_waits() public {
        usdc.blacklist(address(escrow));
        close(terms, 4 * USDC, CONSUMER_PROVIDER);
        expectWaits(PROVIDER);
        expectWaits(payer);
        usdc.unBlacklist(address(escrow));
        expectPaid(payer, 16 * USDC);
    }
}
