// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {LeaseEscrow} from "../src/LeaseEscrow.sol";
import {ReenteringToken} from "./Doubles.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract WithdrawTest is EscrowTest {
    ILeaseEscrow.LeaseTerms internal terms;

    function setUp() public override {
        super.setUp();
        terms = standardTerms();
        open(terms, 20 * USDC);
        vm.warp(START + 2 hours);
        close(terms, 4 * USDC, CONSUMER_PROVIDER);
    }

    function test_pays_all_that_is_owed_to_that_account_alone() public {
        vm.expectEmit();
        emit ILeaseEscrow.Withdrawn(PROVIDER, 3_800_000);
        escrow.withdraw(PROVIDER);
        expect(usdc.balanceOf(PROVIDER), 3_800_000);
        expect(usdc.balanceOf(STRANGER), 0);
        expect(escrow.owed(PROVIDER), 0);
        escrow.withdraw(FEE_RECIPIENT);
        escrow.withdraw(payer);
        expect(usdc.balanceOf(address(escrow)), 0);
    }

    function test_attack26_refuses_twice_and_a_stranger() public {
        escrow.withdraw(PROVIDER);
        refuse(ILeaseEscrow.NothingOwed.selector, PROVIDER);
        escrow.withdraw(PROVIDER);
        refuse(ILeaseEscrow.NothingOwed.selector, STRANGER);
        escrow.withdraw(STRANGER);
    }

    function test_gathers_many_leases_into_one_transfer() public {
        terms.quote = keccak256("second");
        terms.expiry = uint40(START + 30 hours);
        open(terms, 5 * USDC);
        close(terms, 1 * USDC, CONSUMER_PROVIDER);
        escrow.withdraw(PROVIDER);
        expect(usdc.balanceOf(PROVIDER), 4_750_000);
    }

    function test_attack25_a_blacklisted_party_blocks_nobody_else() public {
        usdc.blacklist(PROVIDER);
        refuse("Blacklistable: account is blacklisted");
        escrow.withdraw(PROVIDER);
        expect(escrow.owed(PROVIDER), 3_800_000);
        escrow.withdraw(payer);
        usdc.unBlacklist(PROVIDER);
        usdc.blacklist(payer);
        escrow.withdraw(PROVIDER);
        expect(usdc.balanceOf(PROVIDER), 3_800_000);
    }

    function test_waits_while_the_token_is_paused() public {
        usdc.pause();
        refuse("Pausable: paused");
        escrow.withdraw(PROVIDER);
        usdc.unpause();
        escrow.withdraw(PROVIDER);
    }

    function test_attack28_money_sent_by_mistake_is_credited_to_nobody() public {
        usdc.mint(address(escrow), 100 * USDC);
        expect(escrow.owed(payer), 16 * USDC);
        refuse(ILeaseEscrow.NothingOwed.selector, address(escrow));
        escrow.withdraw(address(escrow));
    }

    function test_attack26_lets_no_token_reenter() public {
        vm.stopPrank();
        ReenteringToken token = new ReenteringToken();
        escrow = newEscrow(address(token));
        escrow.fund(only(terms), only(100), authorization(payer, "", ""));
        close(terms, 0, CONSUMER_PROVIDER);
        token.aim(address(escrow), abi.encodeCall(LeaseEscrow.withdraw, (payer)));
        escrow.withdraw(payer);
        expect(token.balanceOf(payer), 100);
        require(token.answer() == bytes4(keccak256("ReentrancyGuardReentrantCall()")), NotTrue("guarded"));
    }
}
