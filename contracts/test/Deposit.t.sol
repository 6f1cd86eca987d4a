// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {LeaseEscrow} from "../src/LeaseEscrow.sol";
import {KeptShareToken, ReenteringToken, Wallet} from "./Doubles.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract DepositTest is EscrowTest {
    address private spender = vm.addr(CONSUMER_KEY);
    address private meter = vm.addr(METER_KEY);

    function test_sets_the_payers_money_aside() public {
        ILeaseEscrow.Authorization memory auth = depositAuthorization(spender, meter, 7, "a");
        vm.expectEmit();
        emit ILeaseEscrow.CreditDeposited(payer, spender, meter, 7);
        escrow.deposit(spender, meter, 7, auth);
        deposit(5, "b");
        expect(credit().amount, 12);
        expect(credit().releaseAt, 0);
        expect(usdc.balanceOf(address(escrow)), 12);
    }

    function test_attack01_refuses_another_spender_meter_amount_or_salt_than_was_signed() public {
        ILeaseEscrow.Authorization memory auth = depositAuthorization(spender, meter, 7, "a");
        refuse("FiatTokenV2: invalid signature");
        escrow.deposit(STRANGER, meter, 7, auth);
        refuse("FiatTokenV2: invalid signature");
        escrow.deposit(spender, STRANGER, 7, auth);
        refuse("FiatTokenV2: invalid signature");
        escrow.deposit(spender, meter, 6, auth);
        auth.salt = "b";
        refuse("FiatTokenV2: invalid signature");
        escrow.deposit(spender, meter, 7, auth);
    }

    function test_attack02_refuses_a_replay() public {
        ILeaseEscrow.Authorization memory auth = depositAuthorization(spender, meter, 7, "a");
        escrow.deposit(spender, meter, 7, auth);
        refuse("FiatTokenV2: authorization is used or canceled");
        escrow.deposit(spender, meter, 7, auth);
    }

    /// A signature for a deposit funds no lease, and the reverse: the nonces are hashes of other types.
    function test_attack13_deposit_and_funding_signatures_do_not_swap() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        ILeaseEscrow.Authorization memory funding = authorize(PAYER_KEY, only(terms), only(7), "a");
        refuse("FiatTokenV2: invalid signature");
        escrow.deposit(spender, meter, 7, funding);
        ILeaseEscrow.Authorization memory credit_ = depositAuthorization(spender, meter, 7, "a");
        refuse("FiatTokenV2: invalid signature");
        escrow.fund(only(terms), only(7), credit_);
    }

    function test_refuses_nothing_and_keys_that_could_never_spend() public {
        ILeaseEscrow.Authorization memory auth = depositAuthorization(spender, meter, 7, "a");
        refuse(ILeaseEscrow.ZeroAmount.selector, 0);
        escrow.deposit(spender, meter, 0, auth);
        refuse(ILeaseEscrow.BadParty.selector, address(0));
        escrow.deposit(address(0), meter, 7, auth);
        refuse(ILeaseEscrow.BadParty.selector, address(0));
        escrow.deposit(spender, address(0), 7, auth);
        refuse(ILeaseEscrow.SharedKey.selector, meter);
        escrow.deposit(meter, meter, 7, auth);
        revokeMeter();
        refuse(ILeaseEscrow.RevokedMeter.selector, meter);
        escrow.deposit(spender, meter, 7, auth);
        expect(usdc.balanceOf(address(escrow)), 0);
    }

    function test_takes_a_smart_wallets_signature() public {
        vm.stopPrank();
        Wallet wallet = new Wallet(payer);
        vm.startPrank(STRANGER);
        usdc.mint(address(wallet), 7);
        bytes32 typeHash =
            keccak256("Deposit(address payer,address spender,address meter,uint88 amount,bytes32 salt)");
        bytes32 nonce = keccak256(abi.encode(typeHash, address(wallet), spender, meter, 7, bytes32("s")));
        expect(uint256(escrow.depositNonce(address(wallet), spender, meter, 7, "s")), uint256(nonce));
        bytes32 digest = tokenDigest("ReceiveWithAuthorization", 7, nonce, address(wallet));
        escrow.deposit(
            spender, meter, 7, authorization(address(wallet), "s", signedBytes(PAYER_KEY, digest))
        );
        (uint88 amount,) = escrow.credits(address(wallet), spender, meter);
        expect(amount, 7);
    }

    function test_attack04_refuses_a_token_that_delivers_less() public {
        vm.stopPrank();
        escrow = newEscrow(address(new KeptShareToken()));
        refuse(ILeaseEscrow.TransferMismatch.selector, 7, 6);
        escrow.deposit(spender, meter, 7, authorization(payer, "", ""));
    }

    function test_attack26_lets_no_token_reenter() public {
        vm.stopPrank();
        ReenteringToken token = new ReenteringToken();
        escrow = newEscrow(address(token));
        token.aim(address(escrow), abi.encodeCall(LeaseEscrow.reclaimCredit, (payer, spender, meter)));
        escrow.deposit(spender, meter, 7, authorization(payer, "", ""));
        require(token.answer() == bytes4(keccak256("ReentrancyGuardReentrantCall()")), NotTrue("guarded"));
    }
}
