// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {LeaseEscrow} from "../src/LeaseEscrow.sol";
import {HostileWallet, LyingWallet, Wallet} from "./Doubles.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract RequestExitTest is EscrowTest {
    ILeaseEscrow.LeaseTerms internal terms;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        terms = standardTerms();
        id = open(terms, 20 * USDC);
    }

    /// The payer's account becomes a wallet after it opened the lease.
    function becomes(address account, address code) internal {
        vm.etch(account, code.code);
    }

    function test_starts_the_delay_at_the_consumers_or_payers_word() public {
        uint256[2] memory keys = [CONSUMER_KEY, PAYER_KEY];
        for (uint256 i; i < 2; ++i) {
            terms.quote = bytes32(i);
            bytes32 lease = open(terms, USDC);
            bytes memory signature = signedBytes(keys[i], exitDigest(lease));
            vm.expectEmit();
            emit ILeaseEscrow.ExitRequested(lease, START, START + 24 hours, false);
            escrow.requestExit(terms, signature, noSig());
            expectStatus(lease, ILeaseEscrow.Status.Exiting);
        }
    }

    function test_takes_a_compact_signature_too() public {
        ILeaseEscrow.Sig memory sig = signed(CONSUMER_KEY, exitDigest(id));
        escrow.requestExit(terms, abi.encodePacked(sig.r, sig.vs), noSig());
        expectStatus(id, ILeaseEscrow.Status.Exiting);
    }

    function test_shortens_the_delay_with_the_meter_also_later() public {
        exit(terms, false);
        vm.warp(START + 10 hours);
        exit(terms, true);
        ILeaseEscrow.Lease memory lease = leaseOf(id);
        expect(lease.exitAt, START);
        expect(uint256(lease.status), uint256(ILeaseEscrow.Status.ExitingCosigned));
        escrow.reclaim(terms);
    }

    function test_asks_once_and_cannot_be_lengthened() public {
        exit(terms, false);
        bytes memory signature = signedBytes(CONSUMER_KEY, exitDigest(id));
        ILeaseEscrow.Sig memory meterSig = signed(METER_KEY, exitDigest(id));
        refuseStatus(ILeaseEscrow.Status.Exiting);
        escrow.requestExit(terms, signature, noSig());
        exit(terms, true);
        refuseStatus(ILeaseEscrow.Status.ExitingCosigned);
        escrow.requestExit(terms, signature, noSig());
        refuseStatus(ILeaseEscrow.Status.ExitingCosigned);
        escrow.requestExit(terms, signature, meterSig);
    }

    function test_attack23_replay_after_close_changes_nothing() public {
        close(terms, 0, CONSUMER_PROVIDER);
        bytes memory signature = signedBytes(CONSUMER_KEY, exitDigest(id));
        refuseStatus(ILeaseEscrow.Status.Closed);
        escrow.requestExit(terms, signature, noSig());
    }

    function test_says_when_the_rest_is_free_if_expiry_comes_first() public {
        vm.warp(terms.expiry + 1 hours);
        bytes memory signature = signedBytes(CONSUMER_KEY, exitDigest(id));
        vm.expectEmit();
        emit ILeaseEscrow.ExitRequested(id, terms.expiry + 1 hours, terms.expiry + 24 hours, false);
        escrow.requestExit(terms, signature, noSig());
    }

    function test_refuses_everybody_else() public {
        uint256[3] memory keys = [AGENT_KEY, METER_KEY, OTHER_KEY];
        for (uint256 i; i < 3; ++i) {
            bytes memory signature = signedBytes(keys[i], exitDigest(id));
            refuse(ILeaseEscrow.BadSignature.selector, payer);
            escrow.requestExit(terms, signature, noSig());
        }
    }

    function test_attack13_refuses_a_signature_over_something_else() public {
        bytes32[3] memory digests =
            [exitDigest(keccak256("other")), typedDigest(usageHash(id, 0)), typedDigest(closeHash(id, 0, 0))];
        for (uint256 i; i < 3; ++i) {
            bytes memory signature = signedBytes(CONSUMER_KEY, digests[i]);
            refuse(ILeaseEscrow.BadSignature.selector, payer);
            escrow.requestExit(terms, signature, noSig());
        }
    }

    function testFuzz_attack14_refuses_noise(bytes calldata noise) public {
        refuse(ILeaseEscrow.BadSignature.selector, payer);
        escrow.requestExit(terms, noise, noSig());
    }

    function test_refuses_a_forged_meter() public {
        bytes memory signature = signedBytes(CONSUMER_KEY, exitDigest(id));
        ILeaseEscrow.Sig memory forged = signed(OTHER_KEY, exitDigest(id));
        refuse(ILeaseEscrow.BadSignature.selector, terms.meter);
        escrow.requestExit(terms, signature, forged);
    }

    function test_attack24_takes_a_smart_wallets_answer_and_its_change_of_mind_comes_too_late() public {
        vm.stopPrank();
        becomes(payer, address(new Wallet(address(1))));
        Wallet wallet = Wallet(payer);
        bytes memory signature = signedBytes(OTHER_KEY, exitDigest(id));
        refuse(ILeaseEscrow.BadSignature.selector, payer);
        escrow.requestExit(terms, signature, noSig());
        wallet.setOwner(vm.addr(OTHER_KEY));
        escrow.requestExit(terms, signature, noSig());
        wallet.setOwner(address(1));
        vm.warp(START + 24 hours);
        escrow.reclaim(terms);
        expect(escrow.owed(payer), 20 * USDC);
    }

    /// EIP-7702: an account with code whose delegate answers no ERC-1271 still exits by its own key.
    function test_attack19_asks_the_key_before_the_code() public {
        vm.etch(payer, hex"5f5ffd");
        escrow.requestExit(terms, signedBytes(PAYER_KEY, exitDigest(id)), noSig());
        expectStatus(id, ILeaseEscrow.Status.Exiting);
    }

    /// A payer's wallet that says yes to anyone loses time, and its money comes back to it.
    function test_attack24_a_lying_wallet_harms_itself_alone() public {
        vm.stopPrank();
        becomes(payer, address(new LyingWallet()));
        escrow.requestExit(terms, "anything", noSig());
        vm.warp(START + 24 hours);
        escrow.reclaim(terms);
        expect(escrow.owed(payer), 20 * USDC);
    }

    function test_attack23_a_leaked_exit_only_refunds() public {
        exit(terms, false);
        settle(terms, 1 * USDC, PROVIDER_METER);
        vm.warp(START + 24 hours);
        escrow.reclaim(terms);
        expect(escrow.owed(payer), 19 * USDC);
        expect(escrow.owed(PROVIDER) + escrow.owed(FEE_RECIPIENT), 1 * USDC);
    }

    /// A wallet that is not deployed yet signs in ERC-6492's wrapping, which this contract does not unwrap: the
    /// relayer deploys it first.
    function test_attack39_refuses_a_wrapped_signature_of_a_wallet_that_is_not_there() public {
        bytes memory wrapped = abi.encodePacked(
            abi.encode(STRANGER, bytes("deploy"), signedBytes(OTHER_KEY, exitDigest(id))),
            bytes32(0x6492649264926492649264926492649264926492649264926492649264926492)
        );
        refuse(ILeaseEscrow.BadSignature.selector, payer);
        escrow.requestExit(terms, wrapped, noSig());
    }

    /// 128 bytes need not be P-256: a wallet of two owners joins their signatures.
    function test_attack24_a_wallets_signature_may_be_of_any_length() public {
        vm.stopPrank();
        becomes(payer, address(new LyingWallet()));
        escrow.requestExit(terms, new bytes(128), noSig());
        expectStatus(id, ILeaseEscrow.Status.Exiting);
    }

    function test_attack24_survives_hostile_wallets_at_a_bounded_price() public {
        vm.stopPrank();
        for (uint256 i; i <= uint256(type(HostileWallet.Manner).max); ++i) {
            becomes(payer, address(new HostileWallet(HostileWallet.Manner(i))));
            bytes memory signature = signedBytes(OTHER_KEY, exitDigest(id));
            bytes memory call = abi.encodeCall(LeaseEscrow.requestExit, (terms, signature, noSig()));
            uint256 before = gasleft();
            (bool ok, bytes memory reason) = address(escrow).call{gas: 2_000_000}(call);
            require(before - gasleft() < 450_000, NotTrue("bounded gas"));
            require(!ok && bytes4(reason) == ILeaseEscrow.BadSignature.selector, NotTrue("refused"));
        }
        expectStatus(id, ILeaseEscrow.Status.Open);
    }
}
