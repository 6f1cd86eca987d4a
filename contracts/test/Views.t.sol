// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract ViewsTest is EscrowTest {
    function testFuzz_leaseId_is_the_digest_of_the_terms(ILeaseEscrow.LeaseTerms calldata terms) public view {
        expect(uint256(escrow.leaseId(terms)), uint256(idOf(terms)));
    }

    function testFuzz_fundingNonce_is_the_struct_hash(
        bytes32[] calldata ids,
        uint88[] calldata amounts,
        bytes32 salt
    ) public view {
        expect(uint256(escrow.fundingNonce(ids, amounts, salt)), uint256(nonceOf(ids, amounts, salt)));
    }

    struct Case {
        uint88 cumulative;
        uint88 funded;
        uint88 upfront;
        uint88 unattended;
        uint64 ratePerHour;
        uint32 elapsed;
        uint88 allowance;
    }

    function testFuzz_due_is_the_least_of_signed_funded_and_capped(Case memory c) public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        c.funded = uint88(within(c.funded, 1, 1_000_000 * USDC));
        c.elapsed = uint32(within(c.elapsed, 0, 30 hours));
        (terms.upfront, terms.unattended, terms.ratePerHour) = (c.upfront, c.unattended, c.ratePerHour);
        open(terms, c.funded);
        vm.warp(START + c.elapsed);

        uint256 billed = c.elapsed < 24 hours ? c.elapsed : 24 hours;
        uint256 attended = c.cumulative < c.funded ? c.cumulative : c.funded;
        uint256 clock = uint256(c.upfront) + uint256(c.ratePerHour) * billed / 3600;
        if (c.upfront != NO_CAP && clock < attended) attended = clock;
        uint256 ceiling = c.unattended > c.allowance ? c.unattended : c.allowance;
        uint256 alone = attended < ceiling ? attended : ceiling;

        expect(escrow.due(terms, c.cumulative, CONSUMER_PROVIDER, c.allowance), attended);
        expect(escrow.due(terms, c.cumulative, CONSUMER_METER, c.allowance), attended);
        expect(escrow.due(terms, c.cumulative, PROVIDER_METER, c.allowance), alone);
    }

    function test_due_of_a_lease_that_is_not_live_is_what_it_paid() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        expect(escrow.due(terms, 1, CONSUMER_PROVIDER, 0), 0);
        open(terms, USDC);
        close(terms, 600_000, CONSUMER_PROVIDER);
        expect(escrow.due(terms, USDC, CONSUMER_PROVIDER, 0), 600_000);
    }

    function test_no_cap_means_no_cap() public {
        ILeaseEscrow.LeaseTerms memory terms = uncappedTerms();
        terms.ratePerHour = 0;
        open(terms, 20 * USDC);
        expect(escrow.due(terms, 20 * USDC, PROVIDER_METER, 0), 20 * USDC);
    }

    function test_shows_its_delays_and_token() public view {
        expect(escrow.EXIT_DELAY(), 24 hours);
        expect(escrow.COSIGNED_EXIT_DELAY(), 1 hours);
        expect(escrow.RELEASE_DELAY(), 1 hours);
        expect(escrow.MAX_TERM(), 90 days);
        require(address(escrow.token()) == address(usdc), NotTrue("token"));
    }

    function test_is_not_made_without_a_token_or_with_delays_upside_down() public {
        vm.stopPrank();
        bytes memory code = escrowCode();
        refuse(ILeaseEscrow.NoToken.selector, STRANGER);
        create(code, IERC20(STRANGER), 24 hours, 1 hours);
        refuse(ILeaseEscrow.BadDelays.selector, 1 hours, 2 hours);
        create(code, usdc, 1 hours, 2 hours);
        refuse(ILeaseEscrow.BadDelays.selector, 1 hours, 0);
        create(code, usdc, 1 hours, 0);
    }
}
