// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;


import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";
import {LeaseEscrow} from "../src/LeaseEscrow.sol";
import {KeptShareToken, ReenteringToken, Wallet} from "./Doubles.sol";
import {EscrowTest} from "./EscrowTest.sol";

contract FundTest is EscrowTest {
    function three() internal view returns (ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory amounts) {
        terms = new ILeaseEscrow.LeaseTerms[](3);
        amounts = new uint88[](3);
        for (uint256 i; i < 3; ++i) {
            terms[i] = standardTerms();
            terms[i].quote = bytes32(i);
            amounts[i] = uint88(i + 1) * USDC;
        }
    }

    function refuseTerms(ILeaseEscrow.LeaseTerms memory terms, bytes memory reason) internal {
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(1), "");
        auth.from = terms.payer;
        vm.expectRevert(reason);
        escrow.fund(only(terms), only(1), auth);
    }

    function test_opens_and_tops_up_many_leases_from_one_signature() public {
        (ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory amounts) = three();
        escrow.fund(terms, amounts, authorize(PAYER_KEY, terms, amounts, "open"));
        escrow.fund(terms, amounts, authorize(PAYER_KEY, terms, amounts, "top up"));
        for (uint256 i; i < 3; ++i) {
            ILeaseEscrow.Lease memory lease = leaseOf(idOf(terms[i]));
            expect(lease.funded, 2 * amounts[i]);
            expect(lease.openedAt, START);
            expect(uint256(lease.status), uint256(ILeaseEscrow.Status.Open));
        }
        expect(usdc.balanceOf(address(escrow)), 12 * USDC);
    }

    function test_tells_an_indexer_the_whole_terms() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(7), "");
        vm.expectEmit();
        emit ILeaseEscrow.LeaseOpened(idOf(terms), payer, PROVIDER, terms);
        vm.expectEmit();
        emit ILeaseEscrow.LeaseFunded(idOf(terms), payer, 7, 7);
        escrow.fund(only(terms), only(7), auth);
    }

    /// Bits above a field's type would be hashed into another id than that of what the field means.
    function test_refuses_terms_whose_words_hold_more_than_their_type() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(7), "");
        bytes memory funding = abi.encodeCall(ILeaseEscrow.fund, (only(terms), only(7), auth));
        bytes memory asking = abi.encodeCall(ILeaseEscrow.leaseId, (terms));
        // The selector, three heads and the array's length stand before the terms; the last field, quote, is a word.
        for (uint256 field; field < 11; ++field) {
            (funding[132 + 32 * field], asking[4 + 32 * field]) = (0x01, 0x01);
            (bool funded,) = address(escrow).call(funding);
            (bool answered,) = address(escrow).call(asking);
            require(!funded && !answered, NotTrue("such a word is refused"));
            (funding[132 + 32 * field], asking[4 + 32 * field]) = (0x00, 0x00);
        }
        (bool funds,) = address(escrow).call(funding);
        (bool answers,) = address(escrow).call(asking);
        require(funds && answers, NotTrue("what fits is taken"));
        expect(leaseOf(idOf(terms)).funded, 7);
    }

    function test_attack05_credits_a_lease_that_stands_twice_with_the_sum() public {
        ILeaseEscrow.LeaseTerms[] memory terms = new ILeaseEscrow.LeaseTerms[](2);
        uint88[] memory amounts = new uint88[](2);
        (terms[0], terms[1]) = (standardTerms(), standardTerms());
        (amounts[0], amounts[1]) = (3 * USDC, 4 * USDC);
        escrow.fund(terms, amounts, authorize(PAYER_KEY, terms, amounts, ""));
        expect(leaseOf(idOf(terms[0])).funded, 7 * USDC);
    }

    function testFuzz_attack01_refuses_other_terms_than_were_signed(uint8 field, uint64 value) public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(USDC), "");
        bytes32 id = idOf(terms);
        uint256 which = field % 6;
        if (which == 0) terms.provider = address(uint160(value) + 1_000);
        if (which == 1) terms.providerSigner = address(uint160(value) + 1_000);
        if (which == 2) terms.ratePerHour = value;
        if (which == 3) terms.unattended = value;
        if (which == 4) terms.upfront = value;
        if (which == 5) terms.feeRecipient = address(uint160(value) + 1_000);
        vm.assume(idOf(terms) != id);
        refuse("FiatTokenV2: invalid signature");
        escrow.fund(only(terms), only(USDC), auth);
    }

    function test_attack04_refuses_other_amounts_salt_or_shares_than_were_signed() public {
        (ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory amounts) = three();
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, terms, amounts, "salt");
        (amounts[0], amounts[1]) = (amounts[1], amounts[0]);
        refuse("FiatTokenV2: invalid signature");
        escrow.fund(terms, amounts, auth);
        (amounts[0], amounts[1]) = (amounts[1] - 1, amounts[0]);
        refuse("FiatTokenV2: invalid signature");
        escrow.fund(terms, amounts, auth);
        amounts[0] += 1;
        auth.salt = "other";
        refuse("FiatTokenV2: invalid signature");
        escrow.fund(terms, amounts, auth);
    }

    function test_attack02_refuses_a_replay_and_a_cancelled_authorization() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(USDC), "a");
        escrow.fund(only(terms), only(USDC), auth);
        refuse("FiatTokenV2: authorization is used or canceled");
        escrow.fund(only(terms), only(USDC), auth);

        auth = authorize(PAYER_KEY, only(terms), only(USDC), "b");
        bytes32[] memory ids = new bytes32[](1);
        ids[0] = idOf(terms);
        bytes32 nonce = nonceOf(ids, only(USDC), "b");
        bytes32 cancel = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");
        bytes32 digest = keccak256(
            abi.encodePacked(
                hex"1901", usdc.DOMAIN_SEPARATOR(), keccak256(abi.encode(cancel, payer, nonce))
            )
        );
        usdc.cancelAuthorization(payer, nonce, signedBytes(PAYER_KEY, digest));
        refuse("FiatTokenV2: authorization is used or canceled");
        escrow.fund(only(terms), only(USDC), auth);
    }

    /// Stranding: were the money pulled by transferWithAuthorization, anyone who saw the signature could push
    /// it here without `fund`, credited to nobody.
    function test_attack03_signature_serves_fund_alone() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(USDC), "");
        bytes32[] memory ids = new bytes32[](1);
        ids[0] = idOf(terms);
        bytes32 nonce = nonceOf(ids, only(USDC), "");
        refuse("FiatTokenV2: invalid signature");
        usdc.transferWithAuthorization(
            payer, address(escrow), USDC, auth.validAfter, auth.validBefore, nonce, auth.signature
        );
        refuse("FiatTokenV2: caller must be the payee");
        usdc.receiveWithAuthorization(
            payer, address(escrow), USDC, auth.validAfter, auth.validBefore, nonce, auth.signature
        );
        auth.signature =
            signedBytes(PAYER_KEY, tokenDigest("TransferWithAuthorization", USDC, nonce, payer));
        refuse("FiatTokenV2: invalid signature");
        escrow.fund(only(terms), only(USDC), auth);
    }

    function test_opens_only_with_the_payers_own_money() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        address other = vm.addr(OTHER_KEY);
        usdc.mint(other, 10 * USDC);
        ILeaseEscrow.Authorization memory auth = authorize(OTHER_KEY, only(terms), only(USDC), "");
        refuse(
            ILeaseEscrow.NotPayer.selector, uint256(uint160(other)), uint256(uint160(payer))
        );
        escrow.fund(only(terms), only(USDC), auth);

        open(terms, USDC);
        escrow.fund(only(terms), only(USDC), auth);
        expect(leaseOf(idOf(terms)).funded, 2 * USDC);
        close(terms, 0, CONSUMER_PROVIDER);
        expect(escrow.owed(payer), 2 * USDC);
        expect(escrow.owed(other), 0);
    }

    function test_attack06_refuses_mixed_payers() public {
        (ILeaseEscrow.LeaseTerms[] memory terms, uint88[] memory amounts) = three();
        terms[1].payer = vm.addr(OTHER_KEY);
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, terms, amounts, "");
        refuse(
            ILeaseEscrow.NotPayer.selector, uint256(uint160(payer)), uint256(uint160(terms[1].payer))
        );
        escrow.fund(terms, amounts, auth);
        expect(usdc.balanceOf(address(escrow)), 0);
    }

    function test_attack07_refuses_a_top_up_after_exit_close_or_expiry_and_leaves_the_money() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(USDC), "late");
        open(terms, USDC);
        uint256 before = usdc.balanceOf(payer);
        exit(terms, false);
        refuseStatus(ILeaseEscrow.Status.Exiting);
        escrow.fund(only(terms), only(USDC), auth);
        exit(terms, true);
        refuseStatus(ILeaseEscrow.Status.ExitingCosigned);
        escrow.fund(only(terms), only(USDC), auth);
        close(terms, 0, CONSUMER_PROVIDER);
        refuseStatus(ILeaseEscrow.Status.Closed);
        escrow.fund(only(terms), only(USDC), auth);
        vm.warp(terms.expiry);
        refuse(ILeaseEscrow.Expired.selector, terms.expiry);
        escrow.fund(only(terms), only(USDC), auth);
        expect(usdc.balanceOf(payer), before);
    }

    function test_refuses_empty_uneven_and_zero() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(1), "");
        refuse(ILeaseEscrow.LengthMismatch.selector, 0, 0);
        escrow.fund(new ILeaseEscrow.LeaseTerms[](0), new uint88[](0), auth);
        refuse(ILeaseEscrow.LengthMismatch.selector, 1, 2);
        escrow.fund(only(terms), new uint88[](2), auth);
        refuse(ILeaseEscrow.ZeroAmount.selector, uint256(idOf(terms)));
        escrow.fund(only(terms), only(0), auth);
    }

    function test_attack08_refuses_what_the_token_refuses() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(USDC), "");
        auth.validAfter = START;
        refuse("FiatTokenV2: invalid signature");
        escrow.fund(only(terms), only(USDC), auth);
        auth.validAfter = START - 1;
        vm.warp(START - 1);
        refuse("FiatTokenV2: authorization is not yet valid");
        escrow.fund(only(terms), only(USDC), auth);
        terms.expiry = uint40(START + 60 days);
        auth = authorize(PAYER_KEY, only(terms), only(USDC), "");
        vm.warp(START + 30 days);
        refuse("FiatTokenV2: authorization is expired");
        escrow.fund(only(terms), only(USDC), auth);
        vm.warp(START);
        usdc.pause();
        refuse("Pausable: paused");
        escrow.fund(only(terms), only(USDC), auth);
        usdc.unpause();
        usdc.blacklist(payer);
        refuse("Blacklistable: account is blacklisted");
        escrow.fund(only(terms), only(USDC), auth);
        usdc.unBlacklist(payer);
        escrow.fund(only(terms), only(USDC), auth);
        auth = authorize(PAYER_KEY, only(terms), only(type(uint88).max - USDC), "rich");
        refuse("ERC20: transfer amount exceeds balance");
        escrow.fund(only(terms), only(type(uint88).max - USDC), auth);
    }

    /// Times have 32 bits: the contract opens nothing from 2106 on, rather than count from 1970 again.
    function test_attack27_opens_nothing_that_its_clock_cannot_count() public {
        vm.warp(uint256(type(uint32).max) + 1);
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        terms.expiry = uint40(block.timestamp + 1);
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(1), "");
        vm.expectRevert(
            abi.encodeWithSignature("SafeCastOverflowedUintDowncast(uint8,uint256)", 32, block.timestamp)
        );
        escrow.fund(only(terms), only(1), auth);
    }

    function test_attack27_refuses_to_overflow_a_lease() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        usdc.mint(payer, type(uint88).max);
        open(terms, type(uint88).max);
        ILeaseEscrow.Authorization memory auth = authorize(PAYER_KEY, only(terms), only(1), "");
        vm.expectRevert(abi.encodeWithSignature("Panic(uint256)", 0x11));
        escrow.fund(only(terms), only(1), auth);
    }

    function test_attack29_refuses_terms_with_a_party_that_cannot_be_paid_or_sign() public {
        address[3] memory unpayable = [address(0), address(escrow), address(usdc)];
        for (uint256 i; i < 3; ++i) {
            bytes memory reason =
                abi.encodeWithSelector(ILeaseEscrow.BadParty.selector, unpayable[i]);
            ILeaseEscrow.LeaseTerms memory terms = standardTerms();
            terms.payer = unpayable[i];
            refuseTerms(terms, reason);
            terms = standardTerms();
            terms.provider = unpayable[i];
            refuseTerms(terms, reason);
            terms = standardTerms();
            terms.feeRecipient = unpayable[i];
            refuseTerms(terms, reason);
        }
        bytes memory zero = abi.encodeWithSelector(ILeaseEscrow.BadParty.selector, address(0));
        ILeaseEscrow.LeaseTerms memory t = standardTerms();
        t.consumerSigner = address(0);
        refuseTerms(t, zero);
        t = standardTerms();
        t.providerSigner = address(0);
        refuseTerms(t, zero);
        t = standardTerms();
        t.meter = address(0);
        refuseTerms(t, zero);
        t = standardTerms();
        t.provider = payer;
        refuseTerms(t, abi.encodeWithSelector(ILeaseEscrow.BadParty.selector, payer));
    }

    function test_attack10_refuses_two_roles_on_one_key() public {
        bytes4 selector = ILeaseEscrow.SharedKey.selector;
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        terms.providerSigner = terms.consumerSigner;
        refuseTerms(terms, abi.encodeWithSelector(selector, terms.consumerSigner));
        terms = standardTerms();
        terms.meter = terms.consumerSigner;
        refuseTerms(terms, abi.encodeWithSelector(selector, terms.meter));
        terms = standardTerms();
        terms.meter = terms.providerSigner;
        refuseTerms(terms, abi.encodeWithSelector(selector, terms.meter));
    }

    function test_bounds_fee_and_term() public {
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        terms.feeBps = 5_001;
        refuseTerms(terms, abi.encodeWithSelector(ILeaseEscrow.FeeTooHigh.selector, 5_001, 5_000));
        terms.feeBps = 5_000;
        terms.expiry = uint40(START + 90 days + 1);
        refuseTerms(
            terms, abi.encodeWithSelector(ILeaseEscrow.TermTooLong.selector, terms.expiry, START + 90 days)
        );
        terms.expiry = uint40(START + 90 days);
        open(terms, 1);
        terms = standardTerms();
        (terms.feeBps, terms.feeRecipient) = (0, address(0));
        open(terms, 1);
    }

    function test_takes_a_smart_wallets_signature() public {
        vm.stopPrank();
        Wallet wallet = new Wallet(payer);
        vm.startPrank(STRANGER);
        usdc.mint(address(wallet), USDC);
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        terms.payer = address(wallet);
        bytes32[] memory ids = new bytes32[](1);
        ids[0] = idOf(terms);
        bytes32 digest = tokenDigest(
            "ReceiveWithAuthorization", USDC, nonceOf(ids, only(USDC), ""), address(wallet)
        );
        escrow.fund(
            only(terms), only(USDC), authorization(address(wallet), "", signedBytes(PAYER_KEY, digest))
        );
        expect(leaseOf(ids[0]).funded, USDC);
    }

    function test_attack04_refuses_a_token_that_delivers_less() public {
        vm.stopPrank();
        escrow = newEscrow(address(new KeptShareToken()));
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        refuse(ILeaseEscrow.TransferMismatch.selector, 100, 99);
        escrow.fund(only(terms), only(100), authorization(payer, "", ""));
    }

    function test_attack26_lets_no_token_reenter() public {
        vm.stopPrank();
        ReenteringToken token = new ReenteringToken();
        escrow = newEscrow(address(token));
        ILeaseEscrow.LeaseTerms memory terms = standardTerms();
        token.aim(address(escrow), abi.encodeCall(LeaseEscrow.reclaim, (terms)));
        escrow.fund(only(terms), only(100), authorization(payer, "", ""));
        require(token.answer() == bytes4(keccak256("ReentrancyGuardReentrantCall()")), NotTrue("guarded"));
    }
}
