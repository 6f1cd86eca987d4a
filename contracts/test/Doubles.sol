// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {ILeaseEscrow} from "../src/ILeaseEscrow.sol";

/// @notice A smart wallet of one owner that answers ERC-1271.
contract Wallet {
    address public owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function setOwner(address owner_) external {
        owner = owner_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        return signer == owner ? this.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @notice A wallet that answers ERC-1271 questions in a hostile way.
contract HostileWallet {
    enum Manner {
        BurnAllGas,
        Revert,
        RevertYes,
        Short,
        Bomb,
        TenMegabytes,
        Reenter
    }

    Manner private immutable manner;
    constructor(Manner manner_) {
        manner = manner_;
    }

    function isValidSignature(bytes32, bytes calldata) external returns (bytes4) {
        if (manner == Manner.Revert) revert("no");
        if (manner == Manner.BurnAllGas) {
            while (gasleft() > 0) {}
        }
        if (manner == Manner.Reenter) ILeaseEscrow(msg.sender).withdraw(address(this));
        if (manner == Manner.RevertYes) {
            bytes4 yes = this.isValidSignature.selector;
            assembly ("memory-safe") {
                mstore(0, yes)
                revert(0, 32)
            }
        }
        uint256 size = manner == Manner.Bomb ? 200_000 : manner == Manner.TenMegabytes ? 10_000_000 : 4;
        bytes4 selector = manner == Manner.Short ? this.isValidSignature.selector : bytes4(0);
        assembly ("memory-safe") {
            mstore(0, selector)
            return(0, size)
        }
    }
}

/// @notice A wallet that calls every signature its own.
contract LyingWallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return this.isValidSignature.selector;
    }
}

/// @notice Calls one target several times as Multicall3's aggregate3 does: what fails, fails alone.
contract Batch {
    function send(address target, uint256 gasEach, bytes[] calldata calls) external returns (bool[] memory ok) {
        ok = new bool[](calls.length);
        for (uint256 i; i < calls.length; ++i) {
            (ok[i],) = target.call{gas: gasEach}(calls[i]);
        }
    }
}

/// @notice A token that delivers one unit less than it was asked to.
contract KeptShareToken {
    mapping(address account => uint256) public balanceOf;

    function receiveWithAuthorization(
        address,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        bytes calldata
    ) external {
        balanceOf[to] += value - 1;
    }
}

/// @notice A token that calls back into the escrow whenever it moves, and keeps the answer.
contract ReenteringToken {
    mapping(address account => uint256) public balanceOf;
    bytes4 public answer;
    address private target;
    bytes private call;

    function aim(address target_, bytes calldata call_) external {
        (target, call) = (target_, call_);
    }

    function receiveWithAuthorization(
        address,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        bytes calldata
    ) external {
        balanceOf[to] += value;
        reenter();
    }

    function transfer(address to, uint256 value) external returns (bool) {
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value;
        reenter();
        return true;
    }

    function reenter() private {
        (bool ok, bytes memory data) = target.call(call);
        answer = ok ? bytes4(0) : bytes4(data);
    }
}
