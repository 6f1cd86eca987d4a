// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract RevokeMeterTest is EscrowTest {
    ILeaseEscrow.LeaseTerms private terms;
    bytes32 private id;
    address private meter = vm.addr(METER_KEY);

    function setUp() public override {
        super.setUp();
        terms = standardTerms();
        id = open(terms, 20 * USDC);
    }

    function test_is_the_meters_own_word_given_once() public {
        ILeaseEscrow.Sig memory forged = signed(OTHER_KEY, revokeDigest(meter));
        refuse(ILeaseEscrow.BadSignature.selector, meter);
        escrow.revokeMeter(meter, forged);
        ILeaseEscrow.Sig memory sig = signed(METER_KEY, revokeDigest(meter));
        vm.expectEmit();
        emit ILeaseEscrow.MeterRevoked(meter);
        escrow.revokeMeter(meter, sig);
        expect(escrow.meterRevokedAt(meter), START);
        vm.warp(START + 1 hours);
        refuse(ILeaseEscrow.RevokedMeter.selector, meter);
        escrow.revokeMeter(meter, sig);
        expect(escrow.meterRevokedAt(meter), START);
    }

    function test_attack13_refuses_other_signatures_of_the_meter() public {
        bytes32[3] memory digests = [
            exitDigest(id), revokeDigest(vm.addr(OTHER_KEY)), exitDigest(bytes32(uint256(uint160(meter))))
        ];
        for (uint256 i; i < 3; ++i) {
            ILeaseEscrow.Sig memory sig = signed(METER_KEY, digests[i]);
            refuse(ILeaseEscrow.BadSignature.selector, meter);
            escrow.revokeMeter(meter, sig);
        }
    }

    function test_bars_new_leases_and_leaves_others_alone() public {
        revokeMeter();
        terms.quote = "new";
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(USDC), "");
        refuse(ILeaseEscrow.RevokedMeter.selector, meter);
        escrow.fund(only(terms), only(USDC), auth);
        terms.meter = vm.addr(OTHER_KEY);
        open(terms, USDC);
    }

    function test_attack18_stops_the_clock_of_pairs_with_the_meter() public {
        vm.warp(START + 1 hours);
        revokeMeter();
        vm.warp(START + 5 hours);
        expect(escrow.due(terms, 20 * USDC, PROVIDER_METER, 0), 3 * USDC);
        expect(escrow.due(terms, 20 * USDC, CONSUMER_METER, 0), 3 * USDC);
        expect(escrow.due(terms, 20 * USDC, CONSUMER_PROVIDER, 0), 11 * USDC);
        settle(terms, 20 * USDC, PROVIDER_METER);
        expect(leaseOf(id).paid, 3 * USDC);
        settle(terms, 8 * USDC, CONSUMER_PROVIDER);
        expect(leaseOf(id).paid, 8 * USDC);
    }

    function test_vouchers_given_before_still_pay() public {
        vm.warp(START + 2 hours);
        ILeaseEscrow.Pair memory pair = usagePair(terms, 4 * USDC, PROVIDER_METER);
        revokeMeter();
        vm.warp(START + 20 hours);
        escrow.settle(terms, 4 * USDC, EVIDENCE, pair, noAllowance(), noKey());
        expect(leaseOf(id).paid, 4 * USDC);
        close(terms, 5 * USDC, PROVIDER_METER);
        expect(escrow.owed(payer), 15 * USDC);
    }

    function test_an_earlier_exit_or_expiry_still_rules() public {
        vm.warp(START + 1 hours);
        exit(terms, false);
        vm.warp(START + 3 hours);
        revokeMeter();
        expect(escrow.due(terms, 20 * USDC, PROVIDER_METER, 0), 3 * USDC);
    }

    function test_attack18_a_revoked_meter_shortens_no_exit() public {
        revokeMeter();
        bytes memory signature = signedBytes(CONSUMER_KEY, exitDigest(id));
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, exitDigest(id));
        refuse(ILeaseEscrow.RevokedMeter.selector, meter);
        escrow.requestExit(terms, signature, meterSig);
        exit(terms, false);
        vm.warp(START + 24 hours);
        escrow.reclaim(terms);
        expect(escrow.owed(payer), 20 * USDC);
    }

    function test_leases_in_progress_can_still_be_topped_up_by_a_wallet() public {
        revokeMeter();
        escrow.fund(only(terms), only(1), authorize(PAYER_KEY, only(terms), only(1), "more"));
        expect(leaseOf(id).funded, 20 * USDC + 1);
    }
}
