// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {LeaseEscrow} from "../src/LeaseEscrow.sol";
import {HostileWallet, Wallet} from "./Doubles.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract ReleaseTest is EscrowTest {
    address private spender = vm.addr(CONSUMER_KEY);
    address private meter = vm.addr(METER_KEY);
    uint40 private constant LATER = uint40(START + 30 minutes);

    function setUp() public override {
        super.setUp();
        deposit(100 * USDC, "credit");
    }

    function test_returns_all_at_once_with_the_meter() public {
        uint256[2] memory keys = [CONSUMER_KEY, PAYER_KEY];
        for (uint256 i; i < 2; ++i) {
            bytes32 digest = releaseDigest(spender, meter, LATER + uint40(i));
            bytes memory signature = signedBytes(keys[i], digest);
            ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
            vm.expectEmit();
            emit ILeaseEscrow.CreditReleased(payer, spender, meter, 100 * USDC);
            escrow.release(payer, spender, meter, LATER + uint40(i), signature, meterSig);
            expect(escrow.owed(payer), (i + 1) * 100 * USDC);
            expect(credit().amount, 0);
            deposit(100 * USDC, bytes32(i));
        }
    }

    function test_waits_an_hour_without_the_meter() public {
        uint256[2] memory keys = [CONSUMER_KEY, PAYER_KEY];
        for (uint256 i; i < 2; ++i) {
            uint256 asked = START + i * 1 hours;
            uint40 validBefore = uint40(asked + 1);
            bytes memory signature = signedBytes(keys[i], releaseDigest(spender, meter, validBefore));
            vm.expectEmit();
            emit ILeaseEscrow.ReleaseRequested(payer, spender, meter, asked + 1 hours);
            escrow.release(payer, spender, meter, validBefore, signature, noSig());
            expect(credit().amount, 100 * USDC);
            expect(credit().releaseAt, asked + 1 hours);
            vm.warp(asked + 1 hours);
            escrow.reclaimCredit(payer, spender, meter);
            deposit(100 * USDC, bytes32(i));
        }
    }

    function test_is_hastened_by_the_meter_also_later() public {
        bytes32 digest = releaseDigest(spender, meter, LATER);
        bytes memory signature = signedBytes(PAYER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        escrow.release(payer, spender, meter, LATER, signature, noSig());
        escrow.release(payer, spender, meter, LATER, signature, meterSig);
        expect(escrow.owed(payer), 100 * USDC);
        expect(credit().releaseAt, 0);
    }

    function test_attack23_serves_once() public {
        bytes32 digest = releaseDigest(spender, meter, LATER);
        bytes memory signature = signedBytes(PAYER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        escrow.release(payer, spender, meter, LATER, signature, meterSig);
        deposit(10 * USDC, "again");
        refuse(ILeaseEscrow.ReleaseUsed.selector, uint256(digest));
        escrow.release(payer, spender, meter, LATER, signature, meterSig);
        refuse(ILeaseEscrow.ReleaseUsed.selector, uint256(digest));
        escrow.release(payer, spender, meter, LATER, signature, noSig());
        expect(credit().amount, 10 * USDC);
    }

    /// Else a thief of the spender's key could put the payer's release off for ever.
    function test_attack23_a_second_request_postpones_nothing() public {
        release(PAYER_KEY, false);
        vm.warp(START + 30 minutes);
        uint40 validBefore = uint40(START + 2 hours);
        bytes memory signature = signedBytes(CONSUMER_KEY, releaseDigest(spender, meter, validBefore));
        refuse(ILeaseEscrow.ReleasePending.selector, START + 1 hours);
        escrow.release(payer, spender, meter, validBefore, signature, noSig());
    }

    function test_refuses_everybody_else() public {
        bytes32 digest = releaseDigest(spender, meter, LATER);
        uint256[3] memory keys = [AGENT_KEY, METER_KEY, OTHER_KEY];
        for (uint256 i; i < 3; ++i) {
            bytes memory signature = signedBytes(keys[i], digest);
            refuse(ILeaseEscrow.BadSignature.selector, payer);
            escrow.release(payer, spender, meter, LATER, signature, noSig());
        }
        bytes memory own = signedBytes(PAYER_KEY, digest);
        ILeaseEscrow.Sig memory forged = signed(OTHER_KEY, digest);
        refuse(ILeaseEscrow.BadSignature.selector, meter);
        escrow.release(payer, spender, meter, LATER, own, forged);
        expect(credit().amount, 100 * USDC);
    }

    function test_refuses_another_text_than_was_signed() public {
        bytes memory signature = signedBytes(PAYER_KEY, releaseDigest(spender, meter, LATER));
        refuse(ILeaseEscrow.BadSignature.selector, payer);
        escrow.release(payer, spender, meter, LATER + 1, signature, noSig());
        refuse(ILeaseEscrow.BadSignature.selector, payer);
        escrow.release(payer, STRANGER, meter, LATER, signature, noSig());
        refuse(ILeaseEscrow.BadSignature.selector, payer);
        escrow.release(payer, spender, STRANGER, LATER, signature, noSig());
        refuse(ILeaseEscrow.BadSignature.selector, STRANGER);
        escrow.release(STRANGER, spender, meter, LATER, signature, noSig());
    }

    function test_ends_with_its_validity() public {
        bytes memory signature = signedBytes(PAYER_KEY, releaseDigest(spender, meter, LATER));
        vm.warp(LATER);
        refuse(ILeaseEscrow.Expired.selector, LATER);
        escrow.release(payer, spender, meter, LATER, signature, noSig());
        vm.warp(LATER - 1);
        escrow.release(payer, spender, meter, LATER, signature, noSig());
    }

    function test_refuses_an_empty_credit() public {
        release(PAYER_KEY, true);
        vm.warp(START + 1);
        uint40 validBefore = uint40(START + 1 + 10 minutes);
        bytes32 digest = releaseDigest(spender, meter, validBefore);
        bytes memory signature = signedBytes(PAYER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        refuse(ILeaseEscrow.NothingOwed.selector, payer);
        escrow.release(payer, spender, meter, validBefore, signature, noSig());
        refuse(ILeaseEscrow.NothingOwed.selector, payer);
        escrow.release(payer, spender, meter, validBefore, signature, meterSig);
    }

    function test_attack18_a_revoked_meter_hastens_nothing_and_hinders_nothing() public {
        revokeMeter();
        bytes32 digest = releaseDigest(spender, meter, LATER);
        bytes memory signature = signedBytes(PAYER_KEY, digest);
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, digest);
        refuse(ILeaseEscrow.RevokedMeter.selector, meter);
        escrow.release(payer, spender, meter, LATER, signature, meterSig);
        escrow.release(payer, spender, meter, LATER, signature, noSig());
    }

    function test_attack24_takes_a_smart_wallets_answer() public {
        vm.stopPrank();
        vm.etch(payer, address(new Wallet(address(1))).code);
        Wallet(payer).setOwner(vm.addr(OTHER_KEY));
        release(OTHER_KEY, false);
        expect(credit().releaseAt, START + 1 hours);
    }

    function test_attack24_hostile_wallets_hold_only_their_own_credit() public {
        vm.stopPrank();
        for (uint256 i; i <= uint256(type(HostileWallet.Manner).max); ++i) {
            vm.etch(payer, address(new HostileWallet(HostileWallet.Manner(i))).code);
            bytes memory signature = signedBytes(OTHER_KEY, releaseDigest(spender, meter, LATER));
            bytes memory call =
                abi.encodeCall(LeaseEscrow.release, (payer, spender, meter, LATER, signature, noSig()));
            uint256 before = gasleft();
            (bool ok, bytes memory reason) = address(escrow).call{gas: 2_000_000}(call);
            require(before - gasleft() < 450_000, NotTrue("bounded gas"));
            require(!ok && bytes4(reason) == ILeaseEscrow.BadSignature.selector, NotTrue("refused"));
        }
        // The spender's key still gives the credit back.
        release(CONSUMER_KEY, true);
        expect(escrow.owed(payer), 100 * USDC);
    }
}
