// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract AllocateTest is EscrowTest {
    address private spender = vm.addr(CONSUMER_KEY);
    address private meter = vm.addr(METER_KEY);
    uint40 private constant LATER = uint40(START + 1 hours);

    function setUp() public override {
        super.setUp();
        deposit(100 * USDC, "credit");
    }

    function two() private view returns (ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory fundedTo) {
        terms = new ILeaseEscrow.LeaseTerms[](2);
        fundedTo = new uint88[](2);
        for (uint256 i; i < 2; ++i) {
            terms[i] = standardTerms();
            terms[i].quote = bytes32(i);
            fundedTo[i] = uint88(i + 1) * 10 * USDC;
        }
    }

    function digestOf(ILeaseEscrow.LeaseTerms memory terms, uint88 target) private view returns (bytes32) {
        return allocateDigest(idsOf(only(terms)), only(target), LATER);
    }

    function test_opens_and_tops_up_leases_without_the_payer() public {
        (ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory fundedTo) = two();
        bytes32 digest = allocateDigest(idsOf(terms), fundedTo, LATER);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        vm.expectEmit();
        emit ILeaseEscrow.LeaseOpened(idOf(terms[0]), payer, PROVIDER, terms[0]);
        vm.expectEmit();
        emit ILeaseEscrow.LeaseFunded(idOf(terms[0]), payer, 10 * USDC, 10 * USDC);
        vm.expectEmit();
        emit ILeaseEscrow.LeaseOpened(idOf(terms[1]), payer, PROVIDER, terms[1]);
        vm.expectEmit();
        emit ILeaseEscrow.LeaseFunded(idOf(terms[1]), payer, 20 * USDC, 20 * USDC);
        vm.expectEmit();
        emit ILeaseEscrow.CreditAllocated(payer, spender, meter, 30 * USDC);
        escrow.allocate(terms, fundedTo, LATER, signature, meterSig);
        ILeaseEscrow.Lease memory lease = leaseOf(idOf(terms[1]));
        expect(lease.openedAt, START);
        require(lease.fromCredit, NotTrue("from credit"));
        fundedTo[0] = 15 * USDC;
        fundedTo[1] = 25 * USDC;
        allocate(terms, fundedTo);
        expect(leaseOf(idOf(terms[0])).funded, 15 * USDC);
        expect(credit().amount, 60 * USDC);
        expect(usdc.balanceOf(address(escrow)), 100 * USDC);
    }

    function test_raises_only_those_below_their_target() public {
        (ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory fundedTo) = two();
        open(terms[0], 12 * USDC);
        allocate(terms, fundedTo);
        expect(leaseOf(idOf(terms[0])).funded, 12 * USDC);
        require(!leaseOf(idOf(terms[0])).fromCredit, NotTrue("the wallet opened it"));
        expect(leaseOf(idOf(terms[1])).funded, 20 * USDC);
        expect(credit().amount, 80 * USDC);
    }

    function test_attack30_a_replayed_allocate_changes_nothing() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        bytes32 digest = digestOf(terms, 10 * USDC);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
        refuse(ILeaseEscrow.NothingToAllocate.selector);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
        settle(terms, 1 * USDC, CONSUMER_PROVIDER);
        refuse(ILeaseEscrow.NothingToAllocate.selector);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
        close(terms, 1 * USDC, CONSUMER_PROVIDER);
        refuse(ILeaseEscrow.NothingToAllocate.selector);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
        expect(credit().amount, 99 * USDC);
    }

    /// Credit is promised to one meter: what another meter co-signs is another credit, which is empty.
    function test_a_spender_cannot_promise_one_credit_to_two_meters() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        terms.meter = vm.addr(OTHER_KEY);
        bytes32 digest = digestOf(terms, 10 * USDC);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory otherMeter = signed(OTHER_KEY, digest);
        refuse(ILeaseEscrow.InsufficientCredit.selector, 0, 10 * USDC);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, otherMeter);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        refuse(ILeaseEscrow.BadSignature.selector, terms.meter);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
    }

    function test_a_stolen_spender_without_the_meter_gets_nothing() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        terms.provider = STRANGER;
        bytes32 digest = digestOf(terms, 10 * USDC);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        refuse(ILeaseEscrow.BadSignature.selector, meter);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, noSig());
        ILeaseEscrow.Sig memory own = signed(CONSUMER_KEY, digest);
        refuse(ILeaseEscrow.BadSignature.selector, meter);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, own);
        expect(credit().amount, 100 * USDC);
    }

    /// What a payer trusts the two with by depositing: all of that credit, and not a unit more.
    function test_spender_and_meter_together_can_spend_all_of_a_credit_and_no_more() public {
        ILeaseEscrow.LeaseTerms memory terms = uncappedTerms();
        terms.provider = STRANGER;
        terms.feeBps = 0;
        open(standardTerms(), 50 * USDC);
        allocate(only(terms), only(100 * USDC));
        settle(terms, 500 * USDC, CONSUMER_METER);
        expect(escrow.owed(STRANGER), 100 * USDC);
        expect(leaseOf(idOf(standardTerms())).funded, 50 * USDC);
    }

    function test_a_meter_or_payer_without_the_spender_gets_nothing() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        bytes32 digest = digestOf(terms, 10 * USDC);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        uint256[3] memory keys = [METER_KEY, PAYER_KEY, AGENT_KEY];
        for (uint256 i; i < 3; ++i) {
            bytes memory signature = signedBytes(keys[i], digest);
            refuse(ILeaseEscrow.BadSignature.selector, spender);
            escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
        }
        refuse(ILeaseEscrow.BadSignature.selector, spender);
        escrow.allocate(only(terms), only(10 * USDC), LATER, "", meterSig);
    }

    function test_attack10_a_lease_whose_consumer_is_nobody_cannot_be_signed_by_noise() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        open(terms, 10 * USDC);
        terms.consumerSigner = address(0);
        bytes32 digest = digestOf(terms, 0);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        refuse(ILeaseEscrow.BadSignature.selector, address(0));
        escrow.allocate(only(terms), only(0), LATER, "", meterSig);
    }

    function test_refuses_other_terms_targets_or_times_than_were_signed() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        bytes32 digest = digestOf(terms, 10 * USDC);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        refuse(ILeaseEscrow.BadSignature.selector, spender);
        escrow.allocate(only(terms), only(11 * USDC), LATER, signature, meterSig);
        refuse(ILeaseEscrow.BadSignature.selector, spender);
        escrow.allocate(only(terms), only(10 * USDC), LATER + 1, signature, meterSig);
        terms.provider = STRANGER;
        refuse(ILeaseEscrow.BadSignature.selector, spender);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
    }

    function test_ends_with_its_validity() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        bytes32 digest = digestOf(terms, 10 * USDC);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        vm.warp(LATER);
        refuse(ILeaseEscrow.Expired.selector, LATER);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
        vm.warp(LATER - 1);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
    }

    function test_attack06_refuses_leases_of_several_credits() public {
        for (uint256 i; i < 3; ++i) {
            (ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory fundedTo) = two();
            if (i == 0) terms[1].payer = STRANGER;
            if (i == 1) terms[1].consumerSigner = STRANGER;
            if (i == 2) terms[1].meter = STRANGER;
            bytes32 digest = allocateDigest(idsOf(terms), fundedTo, LATER);
            bytes memory signature = signedBytes(CONSUMER_KEY, digest);
            ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
            refuse(ILeaseEscrow.OtherCredit.selector, uint256(idOf(terms[1])));
            escrow.allocate(terms, fundedTo, LATER, signature, meterSig);
        }
    }

    function test_refuses_more_than_there_is() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        bytes32 digest = digestOf(terms, 100 * USDC + 1);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        refuse(ILeaseEscrow.InsufficientCredit.selector, 100 * USDC, 100 * USDC + 1);
        escrow.allocate(only(terms), only(100 * USDC + 1), LATER, signature, meterSig);
        allocate(only(terms), only(100 * USDC));
        expect(credit().amount, 0);
    }

    function test_attack05_a_lease_that_stands_twice_is_raised_to_the_higher_target() public {
        (ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory fundedTo) = two();
        terms[1] = terms[0];
        allocate(terms, fundedTo);
        expect(leaseOf(idOf(terms[0])).funded, 20 * USDC);
        expect(credit().amount, 80 * USDC);
    }

    function test_refuses_empty_and_uneven() public {
        refuse(ILeaseEscrow.LengthMismatch.selector, 0, 0);
        escrow.allocate(new ILeaseEscrow.LeaseTerms[](0), new uint88[](0), LATER, "", noSig());
        refuse(ILeaseEscrow.LengthMismatch.selector, 1, 2);
        escrow.allocate(only(standardTerms()), new uint88[](2), LATER, "", noSig());
    }

    function test_attack07_refuses_to_top_up_after_exit_close_or_expiry() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        allocate(only(terms), only(10 * USDC));
        bytes32 digest = allocateDigest(idsOf(only(terms)), only(20 * USDC), LATER);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        exit(terms, false);
        refuseStatus(ILeaseEscrow.Status.Exiting);
        escrow.allocate(only(terms), only(20 * USDC), LATER, signature, meterSig);
        close(terms, 0, CONSUMER_PROVIDER);
        refuseStatus(ILeaseEscrow.Status.Closed);
        escrow.allocate(only(terms), only(20 * USDC), LATER, signature, meterSig);
        terms.quote = "soon over";
        terms.expiry = LATER - 1;
        digest = allocateDigest(idsOf(only(terms)), only(20 * USDC), LATER);
        signature = signedBytes(CONSUMER_KEY, digest);
        meterSig = signed(METER_KEY, digest);
        vm.warp(LATER - 1);
        refuse(ILeaseEscrow.Expired.selector, LATER - 1);
        escrow.allocate(only(terms), only(20 * USDC), LATER, signature, meterSig);
        expect(credit().amount, 100 * USDC);
    }

    function test_attack10_checks_the_terms_of_what_it_opens() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        terms.providerSigner = meter;
        bytes32 digest = digestOf(terms, 10 * USDC);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        refuse(ILeaseEscrow.SharedKey.selector, meter);
        escrow.allocate(only(terms), only(10 * USDC), LATER, signature, meterSig);
    }

    function test_attack18_refuses_a_revoked_meter_also_for_a_top_up() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        allocate(only(terms), only(10 * USDC));
        bytes32 digest = digestOf(terms, 20 * USDC);
        bytes memory signature = signedBytes(CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        revokeMeter();
        refuse(ILeaseEscrow.RevokedMeter.selector, meter);
        escrow.allocate(only(terms), only(20 * USDC), LATER, signature, meterSig);
    }

    function test_money_of_a_lease_that_credit_opened_returns_to_credit() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        bytes32 id = idOf(terms);
        allocate(only(terms), only(10 * USDC));
        escrow.fund(only(terms), only(5 * USDC), authorize(PAYER_KEY, only(terms), only(5 * USDC), "more"));
        uint40 validBefore = uint40(block.timestamp + 1 hours);
        ILeaseEscrow.Pair memory pair = closePair(terms, 1 * USDC, validBefore, CONSUMER_PROVIDER);
        vm.expectEmit();
        emit ILeaseEscrow.CreditReturned(payer, spender, meter, id, 14 * USDC);
        vm.expectEmit();
        emit ILeaseEscrow.LeaseClosed(id, payer, 1 * USDC, 14 * USDC, ILeaseEscrow.Status.Open);
        escrow.close(terms, 1 * USDC, EVIDENCE, validBefore, pair, noAllowance(), noKey());
        expect(credit().amount, 104 * USDC);
        expect(escrow.owed(payer), 0);
    }

    function test_reclaim_returns_to_credit_too() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        allocate(only(terms), only(10 * USDC));
        exit(terms, true);
        vm.warp(START + 1 hours);
        escrow.reclaim(terms);
        expect(credit().amount, 100 * USDC);
    }

    function test_money_of_a_lease_that_the_wallet_opened_goes_to_the_payer() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        open(terms, 10 * USDC);
        allocate(only(terms), only(30 * USDC));
        close(terms, 0, CONSUMER_PROVIDER);
        expect(escrow.owed(payer), 30 * USDC);
        expect(credit().amount, 80 * USDC);
    }
}
