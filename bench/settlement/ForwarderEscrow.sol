// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title What LeaseEscrow is measured against: the least that a consumer and a provider can act through with an
/// ERC-2771 forwarder
/// @notice One slot per lease. It has no fee, no cap, no expiry, no exit of the consumer, and takes the provider's
/// word for what was used: less than anybody should put money into, so that nothing here costs more than it must.
contract ForwarderEscrow is ERC2771Context {
    using SafeERC20 for IERC20;

    IERC20 private immutable token;
    mapping(
        address consumer => mapping(address provider => mapping(bytes32 lease => uint256 amount))
    ) public deposits;

    event Deposited(
        address indexed consumer, address indexed provider, bytes32 indexed lease, uint256 amount
    );
    event Refunded(
        address indexed consumer, address indexed provider, bytes32 indexed lease, uint256 paid, uint256 rest
    );

    constructor(address forwarder, IERC20 token_) ERC2771Context(forwarder) {
        token = token_;
    }

    /// @notice By the consumer, which has approved this contract: opens a lease, or tops it up.
    function deposit(address provider, bytes32 lease, uint256 amount) external {
        address consumer = _msgSender();
        deposits[consumer][provider][lease] += amount;
        emit Deposited(consumer, provider, lease, amount);
        token.safeTransferFrom(consumer, address(this), amount);
    }

    /// @notice By the provider: takes what was used and gives back the rest.
    function refund(address consumer, bytes32 lease, uint256 used) external {
        address provider = _msgSender();
        uint256 rest = deposits[consumer][provider][lease] - used;
        delete deposits[consumer][provider][lease];
        emit Refunded(consumer, provider, lease, used, rest);
        token.safeTransfer(provider, used);
        token.safeTransfer(consumer, rest);
    }
}
