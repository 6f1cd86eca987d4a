// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EscrowTest} from "./EscrowTest.sol";

/// @notice What the double must share with the real token beyond what the tests of `fund` and `withdraw` show.
contract UsdcDoubleTest is EscrowTest {
    address private constant TO = address(0xC1);

    function digestOf(address to, uint256 value, bytes32 nonce) private view returns (bytes32) {
        bytes32 typeHash = keccak256(
            "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        );
        bytes32 structHash = keccak256(abi.encode(typeHash, payer, to, value, 0, START + 1 hours, nonce));
        return keccak256(abi.encodePacked(hex"1901", usdc.DOMAIN_SEPARATOR(), structHash));
    }

    function test_signs_in_the_domain_of_usdc() public view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("USD Coin"),
                keccak256("2"),
                block.chainid,
                address(usdc)
            )
        );
        expect(uint256(usdc.DOMAIN_SEPARATOR()), uint256(domain));
        require(keccak256(bytes(usdc.name())) == keccak256("USD Coin"), NotTrue("name"));
        require(keccak256(bytes(usdc.version())) == keccak256("2"), NotTrue("version"));
        expect(usdc.decimals(), 6);
    }

    /// Nonces are any 32 bytes in any order, as no sequence could be a hash.
    function testFuzz_takes_any_nonce_once(bytes32 nonce) public {
        bytes memory signature = signedBytes(PAYER_KEY, digestOf(TO, 5, nonce));
        usdc.transferWithAuthorization(payer, TO, 5, 0, START + 1 hours, nonce, signature);
        expect(usdc.balanceOf(TO), 5);
        require(usdc.authorizationState(payer, nonce), NotTrue("used"));
        refuse("FiatTokenV2: authorization is used or canceled");
        usdc.transferWithAuthorization(payer, TO, 5, 0, START + 1 hours, nonce, signature);
    }

    function test_takes_v_r_s_too_and_refuses_the_compact_form() public {
        bytes32 digest = digestOf(TO, 5, "n");
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(PAYER_KEY, digest);
        bytes memory compact = abi.encodePacked(r, signed(PAYER_KEY, digest).vs);
        refuse("FiatTokenV2: invalid signature");
        usdc.transferWithAuthorization(payer, TO, 5, 0, START + 1 hours, "n", compact);
        usdc.transferWithAuthorization(payer, TO, 5, 0, START + 1 hours, "n", v, r, s);
        expect(usdc.balanceOf(TO), 5);
    }

    function test_a_permit_allows_its_amount_until_its_deadline_once() public {
        bytes32 typeHash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 structHash = keccak256(abi.encode(typeHash, payer, TO, 5, 0, START + 1 hours));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", usdc.DOMAIN_SEPARATOR(), structHash));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(PAYER_KEY, digest);
        refuse("EIP2612: invalid signature");
        usdc.permit(payer, TO, 6, START + 1 hours, v, r, s);
        vm.warp(START + 1 hours + 1);
        refuse("FiatTokenV2: permit is expired");
        usdc.permit(payer, TO, 5, START + 1 hours, v, r, s);
        vm.warp(START + 1 hours);
        usdc.permit(payer, TO, 5, START + 1 hours, v, r, s);
        expect(usdc.allowance(payer, TO), 5);
        expect(usdc.nonces(payer), 1);
        refuse("EIP2612: invalid signature");
        usdc.permit(payer, TO, 5, START + 1 hours, v, r, s);
    }

    function test_a_permit_waits_while_the_token_is_paused_and_serves_no_blacklisted_account() public {
        usdc.pause();
        refuse("Pausable: paused");
        usdc.permit(payer, TO, 5, START + 1 hours, 27, 0, 0);
        usdc.unpause();
        address[2] memory parties = [payer, TO];
        for (uint256 i; i < parties.length; ++i) {
            usdc.blacklist(parties[i]);
            refuse("Blacklistable: account is blacklisted");
            usdc.permit(payer, TO, 5, START + 1 hours, 27, 0, 0);
            usdc.unBlacklist(parties[i]);
        }
    }

    function test_refuses_to_pay_a_blacklisted_account_or_through_one() public {
        bytes memory signature = signedBytes(PAYER_KEY, digestOf(TO, 5, "n"));
        usdc.blacklist(TO);
        refuse("Blacklistable: account is blacklisted");
        usdc.transferWithAuthorization(payer, TO, 5, 0, START + 1 hours, "n", signature);
        usdc.unBlacklist(TO);
        usdc.transferWithAuthorization(payer, TO, 5, 0, START + 1 hours, "n", signature);
    }

    function test_lets_its_minter_alone_mint_block_and_pause() public {
        vm.stopPrank();
        string memory reason = "FiatToken: caller is not a minter";
        refuse(reason);
        usdc.mint(TO, 1);
        refuse(reason);
        usdc.blacklist(TO);
        refuse(reason);
        usdc.unBlacklist(TO);
        refuse(reason);
        usdc.pause();
        refuse(reason);
        usdc.unpause();
    }
}
