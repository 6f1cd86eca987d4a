// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";
import {Parties} from "./Parties.sol";

/// @notice Acts on up to four leases in any order, with right and wrong signatures, and remembers what it saw.
/// @dev Not an EscrowTest: the runner would call its setUp as one act among the others.
contract Handler is Parties {
    uint256 public constant LEASES = 4;
    uint256 public moment = START;
    uint88[LEASES] public mostPaid;
    bool public paidFell;
    bool public closedReopened;
    ILeaseEscrow.Status[LEASES] private seen;
    ILeaseEscrow.LeaseTerms[LEASES] private all;

    constructor() {
        deploy();
        for (uint256 i; i < LEASES; ++i) {
            all[i] = i < 2 ? standardTerms() : uncappedTerms();
            all[i].quote = bytes32(i);
            all[i].feeBps = uint16(i * 1_333);
            all[i].expiry = uint40(START + 10 hours * (i + 1));
            if (i == 3) all[i].unattended = 0;
        }
        vm.stopPrank();
    }

    function escrowBalance() external view returns (uint256) {
        return usdc.balanceOf(address(escrow));
    }

    function circulating() external view returns (uint256) {
        return usdc.balanceOf(address(escrow)) + usdc.balanceOf(payer) + usdc.balanceOf(PROVIDER)
            + usdc.balanceOf(FEE_RECIPIENT);
    }

    function supply() external view returns (uint256) {
        return usdc.totalSupply();
    }

    function liabilities() external view returns (uint256 sum) {
        sum = escrow.owed(payer) + escrow.owed(PROVIDER) + escrow.owed(FEE_RECIPIENT);
        for (uint256 i; i < LEASES; ++i) {
            ILeaseEscrow.Lease memory lease = leaseOf(idOf(all[i]));
            if (lease.status != ILeaseEscrow.Status.Closed) sum += lease.funded - lease.paid;
        }
    }

    function overpaid() external view returns (bool) {
        for (uint256 i; i < LEASES; ++i) {
            ILeaseEscrow.Lease memory lease = leaseOf(idOf(all[i]));
            if (lease.paid > lease.funded) return true;
        }
        return false;
    }

    function actFund(uint256 which, uint256 amount, bytes32 salt) external watched {
        (ILeaseEscrow.LeaseTerms memory t, uint88 a) = (pick(which), uint88(within(amount, 0, 50 * USDC)));
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(t), only(a), salt);
        try escrow.fund(only(t), only(a), auth) {} catch {}
    }

    function actSettle(uint256 which, uint256 amount, uint256 roles, uint256 allowed) external watched {
        (ILeaseEscrow.LeaseTerms memory t, uint88 c) = (pick(which), uint88(within(amount, 0, 60 * USDC)));
        uint8 mask = [CONSUMER_PROVIDER, CONSUMER_METER, PROVIDER_METER, 4][roles % 4];
        ILeaseEscrow.Allowance memory allowance = allowanceOf(t, uint88(within(allowed, 0, 60 * USDC)));
        try escrow.settle(t, c, EVIDENCE, usagePair(t, c, mask), allowance, noKey()) {} catch {}
    }

    function actClose(uint256 which, uint256 amount, uint256 roles) external watched {
        // One in four of the draws, else most leases would be over before anything happens to them.
        if (which % 4 != 0) return;
        ILeaseEscrow.LeaseTerms memory t = pick(which / 4);
        uint88 c = uint88(within(amount, 0, 20 * USDC));
        uint8 mask = [CONSUMER_PROVIDER, CONSUMER_METER, PROVIDER_METER][roles % 3];
        uint40 validBefore = uint40(block.timestamp + 1 hours);
        ILeaseEscrow.Pair memory pair = closePair(t, c, validBefore, mask);
        try escrow.close(t, c, EVIDENCE, validBefore, pair, noAllowance(), noKey()) {} catch {}
    }

    function actExit(uint256 which, bool cosigned) external watched {
        if (which % 4 != 0) return;
        ILeaseEscrow.LeaseTerms memory t = pick(which / 4);
        bytes32 digest = exitDigest(idOf(t));
        ILeaseEscrow.Sig memory meterSig = cosigned ? signed(METER_KEY, digest) : noSig();
        try escrow.requestExit(t, signedBytes(CONSUMER_KEY, digest), meterSig) {} catch {}
    }

    function actReclaim(uint256 which) external watched {
        try escrow.reclaim(pick(which)) {} catch {}
    }

    function actWithdraw(uint256 which) external watched {
        try escrow.withdraw([payer, PROVIDER, FEE_RECIPIENT, STRANGER][which % 4]) {} catch {}
    }

    function actWait(uint256 time) external watched {
        moment += within(time, 1, 5 hours);
        vm.warp(moment);
    }

    function statusOf(uint256 which) external view returns (ILeaseEscrow.Status) {
        return leaseOf(idOf(pick(which))).status;
    }

    function pick(uint256 which) private view returns (ILeaseEscrow.LeaseTerms memory) {
        return all[which % LEASES];
    }

    modifier watched() {
        _;
        for (uint256 i; i < LEASES; ++i) {
            ILeaseEscrow.Lease memory lease = leaseOf(idOf(all[i]));
            if (lease.paid < mostPaid[i]) paidFell = true;
            mostPaid[i] = lease.paid;
            if (seen[i] == ILeaseEscrow.Status.Closed && lease.status != seen[i]) closedReopened = true;
            seen[i] = lease.status;
        }
    }
}

contract SolvencyTest is EscrowTest {
    Handler private handler;

    function setUp() public override {
        handler = new Handler();
    }

    /// Without this the invariants would also hold of a handler whose every act is refused.
    function test_the_acts_reach_every_state() public {
        for (uint256 i; i < 4; ++i) {
            handler.actFund(i, 20e6, bytes32(i));
            expect(uint256(handler.statusOf(i)), uint256(ILeaseEscrow.Status.Open));
        }
        handler.actSettle(2, 5e6, 2, 0);
        expect(handler.mostPaid(2), 5e6);
        handler.actClose(8, 6e6, 0);
        expect(handler.mostPaid(2), 6e6);
        expect(uint256(handler.statusOf(2)), uint256(ILeaseEscrow.Status.Closed));
        handler.actExit(0, false);
        expect(uint256(handler.statusOf(0)), uint256(ILeaseEscrow.Status.Exiting));
        handler.actExit(4, true);
        expect(uint256(handler.statusOf(1)), uint256(ILeaseEscrow.Status.ExitingCosigned));
        handler.actWait(2 hours);
        handler.actReclaim(1);
        expect(uint256(handler.statusOf(1)), uint256(ILeaseEscrow.Status.Closed));
        expect(handler.liabilities(), 80e6);
        handler.actWithdraw(0);
        handler.actWithdraw(1);
        // Back to the payer: 14 of the closed lease, 20 of the reclaimed; to the provider 6 less 26.66 %.
        expect(handler.liabilities(), 40e6 + 6e6 * 2_666 / 10_000);
        expect(handler.escrowBalance(), handler.liabilities());
    }

    /// The runner calls only the handler's own acts.
    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_every_unit_is_accounted_for() external view {
        expect(handler.escrowBalance(), handler.liabilities());
    }

    function invariant_money_goes_to_parties_alone() external view {
        expect(handler.circulating(), handler.supply());
    }

    function invariant_paid_only_rises_within_the_funding_and_closed_is_closed() external view {
        require(!handler.overpaid(), NotTrue("paid is within the funding"));
        require(!handler.paidFell(), NotTrue("paid never falls"));
        require(!handler.closedReopened(), NotTrue("closed stays closed"));
    }
}
