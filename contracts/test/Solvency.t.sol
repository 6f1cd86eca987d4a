// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";
import {Parties} from "./Parties.sol";

/// @notice Plays all parties in any order, and holds the escrow to a second reckoning of what is due to whom.
/// @dev An act that the rules refuse is not tried, so that a revert is a failure (`failOnRevert`). Not an
/// EscrowTest: the runner would call its setUp as one act among the others. A slot whose lease has closed takes
/// a new lease, so that long runs do not fall silent.
contract Handler is Parties {
    uint256 public constant SLOTS = 4;
    uint256 public moment = START;
    uint256 public donated;
    uint256 public revokedAt;
    ILeaseEscrow.LeaseTerms[SLOTS] private all;
    uint88[SLOTS] public paid;
    bytes32[] private closed;
    uint256 private salts;
    uint256 public paidToProvider;
    uint256 public paidInFees;

    constructor() {
        deploy();
        vm.stopPrank();
        for (uint256 i; i < SLOTS; ++i) {
            renew(i);
        }
    }

    // Acts

    function actFund(uint256 which, uint256 amount) external watched {
        ILeaseEscrow.LeaseTerms memory t = pick(which);
        if (moment >= t.expiry && !live(t)) return renew(which % SLOTS);
        if (!fundable(t)) return;
        uint88 a = uint88(within(amount, 1, 50 * USDC));
        escrow.fund(only(t), only(a), authorize(PAYER_KEY, only(t), only(a), bytes32(++salts)));
    }

    function actDeposit(uint256 amount) external watched {
        if (revokedAt > 0) return;
        uint88 a = uint88(within(amount, 1, 50 * USDC));
        deposit(a, bytes32(++salts));
    }

    function actAllocate(uint256 which, uint256 amount) external watched {
        ILeaseEscrow.LeaseTerms memory t = pick(which);
        uint88 there = credit().amount;
        if (!fundable(t) || revokedAt > 0 || there == 0) return;
        uint88 target = leaseOf(idOf(t)).funded + uint88(within(amount, 1, there));
        allocate(only(t), only(target));
    }

    function actSettle(uint256 which, uint256 amount, uint256 pair, uint256 allowed) external watched {
        ILeaseEscrow.LeaseTerms memory t = pick(which);
        uint8 roles = rolesOf(pair);
        uint88 cumulative = uint88(within(amount, 0, 60 * USDC));
        uint88 allowance = uint88(within(allowed, 0, 30 * USDC));
        uint88 due = dueOf(t, cumulative, roles, allowance);
        if (!live(t) || due <= leaseOf(idOf(t)).paid) return;
        escrow.settle(
            t, cumulative, EVIDENCE, usagePair(t, cumulative, roles), allowanceOf(t, allowance), noKey()
        );
        reckon(t, due);
    }

    function actClose(uint256 which, uint256 amount, uint256 pair) external watched {
        ILeaseEscrow.LeaseTerms memory t = pick(which);
        uint8 roles = pair % 2 == 0 ? CONSUMER_PROVIDER : PROVIDER_METER;
        uint88 due = dueOf(t, NO_CAP, roles, 0);
        uint88 before = leaseOf(idOf(t)).paid;
        // One in four of the draws, else most leases would be over before anything happens to them.
        if (amount % 4 != 0 || !live(t) || due < before) return;
        uint88 last = uint88(within(amount / 4, before, due));
        close(t, last, roles);
        reckon(t, last);
        retire(which);
    }

    function actExit(uint256 which, bool cosigned, uint256 chance) external watched {
        ILeaseEscrow.LeaseTerms memory t = pick(which);
        ILeaseEscrow.Status status = leaseOf(idOf(t)).status;
        bool askable = status == ILeaseEscrow.Status.Open || (cosigned && status == ILeaseEscrow.Status.Exiting);
        if (chance % 3 != 0 || !askable || (cosigned && revokedAt > 0)) return;
        exit(t, cosigned);
    }

    function actReclaim(uint256 which) external watched {
        ILeaseEscrow.LeaseTerms memory t = pick(which);
        ILeaseEscrow.Lease memory lease = leaseOf(idOf(t));
        uint256 free = t.expiry + 24 hours;
        if (lease.status == ILeaseEscrow.Status.Exiting && lease.exitAt + 24 hours < free) {
            free = lease.exitAt + 24 hours;
        }
        if (lease.status == ILeaseEscrow.Status.ExitingCosigned && lease.exitAt + 1 hours < free) {
            free = lease.exitAt + 1 hours;
        }
        if (!live(t) || moment < free) return;
        escrow.reclaim(t);
        retire(which);
    }

    function actRelease(bool cosigned, bool byPayer) external watched {
        ILeaseEscrow.Credit memory c = credit();
        if (c.amount == 0 || (cosigned ? revokedAt > 0 : c.releaseAt > 0)) return;
        (address spender, address meter) = (vm.addr(CONSUMER_KEY), vm.addr(METER_KEY));
        // A text serves once, so each has another validity.
        uint40 validBefore = uint40(moment + 1 days + ++salts);
        bytes32 digest = releaseDigest(spender, meter, validBefore);
        bytes memory signature = signedBytes(byPayer ? PAYER_KEY : CONSUMER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = cosigned ? signed(METER_KEY, digest) : noSig();
        escrow.release(payer, spender, meter, validBefore, signature, meterSig);
    }

    function actReclaimCredit() external watched {
        ILeaseEscrow.Credit memory c = credit();
        if (c.amount == 0 || c.releaseAt == 0 || moment < c.releaseAt) return;
        escrow.reclaimCredit(payer, vm.addr(CONSUMER_KEY), vm.addr(METER_KEY));
    }

    function actRevoke(uint256 chance) external watched {
        if (chance % 64 != 0 || revokedAt > 0) return;
        revokeMeter();
        revokedAt = moment;
    }

    function actWithdraw(uint256 which) external watched {
        address account = [payer, PROVIDER, FEE_RECIPIENT][which % 3];
        if (escrow.owed(account) > 0) escrow.withdraw(account);
    }

    function actDonate(uint256 amount) external watched {
        uint256 a = within(amount, 1, USDC);
        vm.startPrank(STRANGER);
        usdc.mint(address(escrow), a);
        vm.stopPrank();
        donated += a;
    }

    function actWait(uint256 time) external watched {
        // The authorizations of Parties are good for 30 days.
        if (moment > START + 29 days) return;
        moment += within(time, 1, 5 hours);
        vm.warp(moment);
    }

    function closedCount() external view returns (uint256) {
        return closed.length;
    }

    function statusOf(uint256 slot) external view returns (ILeaseEscrow.Status) {
        return leaseOf(idOf(all[slot])).status;
    }

    // What must hold

    function expectSolvent() external view {
        uint256 sum = escrow.owed(payer) + escrow.owed(PROVIDER) + escrow.owed(FEE_RECIPIENT) + credit().amount;
        for (uint256 i; i < SLOTS; ++i) {
            ILeaseEscrow.Lease memory lease = leaseOf(idOf(all[i]));
            sum += lease.funded - lease.paid;
        }
        expect(usdc.balanceOf(address(escrow)), sum + donated);
    }

    /// The provider and the fee recipient have what this side reckons, to the unit, and the payer all else.
    function expectDestinations() external view {
        expect(usdc.balanceOf(PROVIDER) + escrow.owed(PROVIDER), paidToProvider);
        expect(usdc.balanceOf(FEE_RECIPIENT) + escrow.owed(FEE_RECIPIENT), paidInFees);
        uint256 known = usdc.balanceOf(address(escrow)) + usdc.balanceOf(payer) + usdc.balanceOf(PROVIDER)
            + usdc.balanceOf(FEE_RECIPIENT);
        expect(known, usdc.totalSupply());
    }

    function expectCaps() external view {
        for (uint256 i; i < SLOTS; ++i) {
            ILeaseEscrow.Lease memory lease = leaseOf(idOf(all[i]));
            require(lease.paid <= lease.funded, NotTrue("paid is within the funding"));
            require(lease.paid == paid[i], NotTrue("paid is what was reckoned"));
            if (lease.status == ILeaseEscrow.Status.None) continue;
            require(lease.paid <= clockOf(all[i], lease, CONSUMER_PROVIDER), NotTrue("paid is within the cap"));
        }
    }

    function expectClosedStaysClosed() external view {
        for (uint256 i; i < closed.length; ++i) {
            expectStatus(closed[i], ILeaseEscrow.Status.Closed);
        }
    }

    modifier watched() {
        uint88[SLOTS] memory before = paid;
        _;
        for (uint256 i; i < SLOTS; ++i) {
            bool fresh = leaseOf(idOf(all[i])).status == ILeaseEscrow.Status.None;
            require(fresh || leaseOf(idOf(all[i])).paid >= before[i], NotTrue("paid never falls"));
        }
    }

    // A second reckoning, from DESIGN section 8 and not from the contract

    function dueOf(ILeaseEscrow.LeaseTerms memory t, uint88 cumulative, uint8 roles, uint88 allowance)
        private
        view
        returns (uint88)
    {
        ILeaseEscrow.Lease memory lease = leaseOf(idOf(t));
        if (lease.status == ILeaseEscrow.Status.None) return 0;
        uint256 due = cumulative;
        if (lease.funded < due) due = lease.funded;
        uint256 clock = clockOf(t, lease, roles);
        if (clock < due) due = clock;
        if (roles == PROVIDER_METER) {
            uint256 ceiling = allowance > t.unattended ? allowance : t.unattended;
            if (ceiling < due) due = ceiling;
        }
        return uint88(due);
    }

    function clockOf(ILeaseEscrow.LeaseTerms memory t, ILeaseEscrow.Lease memory lease, uint8 roles)
        private
        view
        returns (uint256)
    {
        if (t.upfront == NO_CAP) return NO_CAP;
        uint256 until = moment;
        if (lease.exitAt > 0 && lease.exitAt < until) until = lease.exitAt;
        if (t.expiry < until) until = t.expiry;
        if (roles != CONSUMER_PROVIDER && revokedAt > 0 && revokedAt < until) until = revokedAt;
        return t.upfront + uint256(t.ratePerHour) * (until - lease.openedAt) / 3600;
    }

    function reckon(ILeaseEscrow.LeaseTerms memory t, uint88 newPaid) private {
        for (uint256 i; i < SLOTS; ++i) {
            if (all[i].quote != t.quote) continue;
            uint256 fee = uint256(newPaid) * t.feeBps / 10_000 - uint256(paid[i]) * t.feeBps / 10_000;
            paidInFees += fee;
            paidToProvider += newPaid - paid[i] - fee;
            paid[i] = newPaid;
        }
    }

    // Leases

    function pick(uint256 which) private view returns (ILeaseEscrow.LeaseTerms memory) {
        return all[which % SLOTS];
    }

    function rolesOf(uint256 pair) private pure returns (uint8) {
        return [CONSUMER_PROVIDER, CONSUMER_METER, PROVIDER_METER][pair % 3];
    }

    function live(ILeaseEscrow.LeaseTerms memory t) private view returns (bool) {
        ILeaseEscrow.Status status = leaseOf(idOf(t)).status;
        return status != ILeaseEscrow.Status.None && status != ILeaseEscrow.Status.Closed;
    }

    function fundable(ILeaseEscrow.LeaseTerms memory t) private view returns (bool) {
        ILeaseEscrow.Status status = leaseOf(idOf(t)).status;
        if (moment >= t.expiry) return false;
        return status == ILeaseEscrow.Status.Open || (status == ILeaseEscrow.Status.None && revokedAt == 0);
    }

    function retire(uint256 which) private {
        closed.push(idOf(pick(which)));
        renew(which % SLOTS);
    }

    function renew(uint256 slot) private {
        ILeaseEscrow.LeaseTerms memory t = slot % 2 == 0 ? standardTerms() : uncappedTerms();
        t.quote = bytes32(++salts);
        t.feeBps = uint16(slot * 1_333);
        t.expiry = uint40(moment + 10 hours * (slot + 1));
        if (slot == 3) t.unattended = 0;
        all[slot] = t;
        paid[slot] = 0;
    }
}

contract SolvencyTest is EscrowTest {
    Handler private handler;

    function setUp() public override {
        handler = new Handler();
    }

    function hold() private view {
        handler.expectSolvent();
        handler.expectDestinations();
        handler.expectCaps();
        handler.expectClosedStaysClosed();
    }

    /// Without this the invariants would also hold of a handler that never gets anywhere.
    function test_the_acts_reach_every_state() public {
        handler.actDeposit(40e6 - 1);
        handler.actFund(0, 20e6 - 1);
        handler.actAllocate(1, 20e6 - 1);
        handler.actFund(2, 20e6 - 1);
        handler.actSettle(1, 5e6, 2, 0);
        expect(handler.paid(1), 5e6);
        handler.actClose(1, 4 * 1e6, 0);
        expect(handler.paid(1), 0);
        expect(handler.closedCount(), 1);
        handler.actExit(0, false, 0);
        expect(uint256(handler.statusOf(0)), uint256(ILeaseEscrow.Status.Exiting));
        handler.actExit(2, true, 0);
        expect(uint256(handler.statusOf(2)), uint256(ILeaseEscrow.Status.ExitingCosigned));
        handler.actDonate(1);
        handler.actRelease(false, true);
        handler.actWait(2 hours);
        handler.actReclaim(2);
        expect(handler.closedCount(), 2);
        handler.actReclaimCredit();
        handler.actDeposit(1);
        handler.actRelease(true, false);
        for (uint256 i; i < 3; ++i) {
            handler.actWithdraw(i);
        }
        handler.actRevoke(0);
        expect(handler.revokedAt(), handler.moment());
        hold();
    }

    /// The runner calls only the handler's own acts.
    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// SPEC MON-4.
    function invariant_no_money_goes_astray() external view {
        hold();
    }
}
