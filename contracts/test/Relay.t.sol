// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {LeaseEscrow} from "../src/LeaseEscrow.sol";
import {Batch, HostileWallet} from "./Doubles.sol";
import {EscrowTest} from "./EscrowTest.sol";

/// @notice Calls come from anyone, in any order, alone or in a batch. (Every other test calls as STRANGER.)
contract RelayTest is EscrowTest {
    Batch private batch;
    ILeaseEscrow.LeaseTerms private terms;
    bytes32 private id;

    function setUp() public override {
        batch = new Batch();
        super.setUp();
        terms = standardTerms();
        id = open(terms, 20 * USDC);
    }

    function settleCall(uint88 cumulative) private view returns (bytes memory) {
        ILeaseEscrow.Pair memory pair = usagePair(terms, cumulative, PROVIDER_METER);
        return abi.encodeCall(
            LeaseEscrow.settle, (terms, cumulative, EVIDENCE, pair, noAllowance(), noKey())
        );
    }

    function closeCall(uint88 cumulative) private view returns (bytes memory) {
        uint40 validBefore = uint40(block.timestamp + 1 hours);
        ILeaseEscrow.Pair memory pair = closePair(terms, cumulative, validBefore, CONSUMER_PROVIDER);
        return abi.encodeCall(
            LeaseEscrow.close, (terms, cumulative, EVIDENCE, validBefore, pair, noAllowance(), noKey())
        );
    }

    /// Each call twice in a row, as a front-runner and the relayer it copied would: the second changes nothing.
    function test_attack30_a_front_run_changes_nothing_but_who_pays_gas() public {
        deposit(10 * USDC, "credit");
        bytes32 digest = releaseDigest(terms.consumerSigner, terms.meter, uint40(START + 1));
        bytes[] memory calls = new bytes[](5);
        calls[0] = settleCall(400_000);
        calls[1] = abi.encodeCall(
            LeaseEscrow.requestExit, (terms, signedBytes(CONSUMER_KEY, exitDigest(id)), noSig())
        );
        calls[2] = closeCall(500_000);
        calls[3] = abi.encodeCall(
            LeaseEscrow.release,
            (
                payer,
                terms.consumerSigner,
                terms.meter,
                uint40(START + 1),
                signedBytes(PAYER_KEY, digest),
                signed(METER_KEY, digest)
            )
        );
        calls[4] = abi.encodeCall(LeaseEscrow.withdraw, (payer));
        uint256 before = usdc.balanceOf(payer);
        for (uint256 i; i < calls.length; ++i) {
            (bool first,) = address(escrow).call(calls[i]);
            (bool second,) = address(escrow).call(calls[i]);
            require(first && !second, NotTrue("once"));
        }
        expect(usdc.balanceOf(payer) - before, 29_500_000);
        expect(escrow.owed(PROVIDER), 475_000);
    }

    function test_attack31_a_poisoned_or_burning_call_of_a_batch_fails_alone() public {
        vm.stopPrank();
        ILeaseEscrow.LeaseTerms memory hostile = standardTerms();
        hostile.quote = "hostile";
        open(hostile, USDC);
        vm.etch(payer, address(new HostileWallet(HostileWallet.Manner.BurnAllGas)).code);
        bytes[] memory calls = new bytes[](4);
        calls[0] = settleCall(400_000);
        calls[1] = abi.encodeCall(LeaseEscrow.requestExit, (hostile, hex"00", noSig()));
        calls[2] = settleCall(300_000);
        calls[3] = closeCall(500_000);
        bool[] memory ok = batch.send(address(escrow), 500_000, calls);
        require(ok[0] && !ok[1] && !ok[2] && ok[3], NotTrue("the good ones pass"));
        expect(escrow.owed(PROVIDER), 475_000);
    }

    function test_attack32_a_call_with_too_little_gas_fails_alone_and_can_be_sent_again() public {
        bytes[] memory calls = new bytes[](1);
        calls[0] = settleCall(400_000);
        require(!batch.send(address(escrow), 30_000, calls)[0], NotTrue("out of gas"));
        expect(leaseOf(id).paid, 0);
        require(batch.send(address(escrow), 200_000, calls)[0], NotTrue("again"));
        expect(leaseOf(id).paid, 400_000);
    }

    function test_attack33_a_whole_life_runs_from_any_caller_and_in_one_batch(address caller) public {
        vm.stopPrank();
        vm.startPrank(caller);
        terms.quote = "one batch";
        bytes[] memory calls = new bytes[](4);
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(5 * USDC), "");
        calls[0] = abi.encodeCall(LeaseEscrow.fund, (only(terms), only(5 * USDC), auth));
        calls[1] = settleCall(400_000);
        calls[2] = closeCall(500_000);
        calls[3] = abi.encodeCall(LeaseEscrow.withdraw, (PROVIDER));
        bool[] memory ok = batch.send(address(escrow), 500_000, calls);
        require(ok[0] && ok[1] && ok[2] && ok[3], NotTrue("all pass"));
        expect(usdc.balanceOf(PROVIDER), 475_000);
    }

    /// SPEC MON-1. The ERC-2771 spoof appends a victim's address to the calldata; nobody reads it here.
    function test_attack34_an_appended_sender_means_nothing() public {
        bytes memory exit_ =
            abi.encodeCall(LeaseEscrow.requestExit, (terms, signedBytes(OTHER_KEY, exitDigest(id)), noSig()));
        (bool ok,) = address(escrow).call(abi.encodePacked(exit_, payer));
        require(!ok, NotTrue("refused"));
        (ok,) = address(escrow).call(abi.encodePacked(settleCall(400_000), payer));
        require(ok, NotTrue("the signatures decide"));
    }

    function test_takes_no_ether_and_no_unknown_call() public {
        (bool ok,) = address(escrow).call{value: 0}("");
        require(!ok, NotTrue("no receive"));
        (ok,) = address(escrow).call(hex"deadbeef");
        require(!ok, NotTrue("no fallback"));
    }
}
