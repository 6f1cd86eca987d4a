// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract ReclaimTest is EscrowTest {
    ILeaseEscrow.LeaseTerms internal terms;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        terms = standardTerms();
        id = open(terms, 20 * USDC);
    }

    function expectFreeAt(uint256 notBefore, ILeaseEscrow.Status from) internal {
        vm.warp(notBefore - 1);
        refuse(ILeaseEscrow.TooEarly.selector, notBefore);
        escrow.reclaim(terms);
        vm.warp(notBefore);
        vm.expectEmit();
        emit ILeaseEscrow.LeaseClosed(id, payer, 0, 20 * USDC, from);
        escrow.reclaim(terms);
        expect(escrow.owed(payer), 20 * USDC);
        expectStatus(id, ILeaseEscrow.Status.Closed);
    }

    function test_attack20_waits_a_day_after_expiry() public {
        expectFreeAt(terms.expiry + 24 hours, ILeaseEscrow.Status.Open);
    }

    function test_attack20_waits_a_day_after_an_exit() public {
        vm.warp(START + 3 hours);
        exit(terms, false);
        expectFreeAt(START + 27 hours, ILeaseEscrow.Status.Exiting);
    }

    function test_attack20_waits_an_hour_after_a_cosigned_exit() public {
        vm.warp(START + 3 hours);
        exit(terms, true);
        expectFreeAt(START + 4 hours, ILeaseEscrow.Status.ExitingCosigned);
    }

    function test_is_not_delayed_by_an_exit_after_expiry() public {
        vm.warp(terms.expiry + 23 hours);
        exit(terms, false);
        expectFreeAt(terms.expiry + 24 hours, ILeaseEscrow.Status.Exiting);
    }

    /// Consumer and meter leave together; the provider's last voucher still lands inside the hour, and after
    /// it until somebody reclaims.
    function test_attack21_leaves_the_provider_its_window() public {
        vm.warp(START + 2 hours);
        exit(terms, true);
        vm.warp(START + 2 hours + 59 minutes);
        settle(terms, 4 * USDC, PROVIDER_METER);
        vm.warp(START + 10 hours);
        settle(terms, 5 * USDC, PROVIDER_METER);
        escrow.reclaim(terms);
        expect(escrow.owed(payer), 15 * USDC);
        ILeaseEscrow.Pair memory pair = usagePair(terms, 6 * USDC, PROVIDER_METER);
        refuseStatus(ILeaseEscrow.Status.Closed);
        escrow.settle(terms, 6 * USDC, EVIDENCE, pair, noAllowance(), noKey());
    }

    function test_attack22_happens_once_and_only_to_a_lease() public {
        vm.warp(terms.expiry + 24 hours);
        escrow.reclaim(terms);
        refuseStatus(ILeaseEscrow.Status.Closed);
        escrow.reclaim(terms);
        terms.quote = keccak256("never funded");
        refuseStatus(ILeaseEscrow.Status.None);
        escrow.reclaim(terms);
    }
}
