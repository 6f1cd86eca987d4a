// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Parties} from "./Parties.sol";

/// @notice A test with a new escrow for each of its functions.
abstract contract EscrowTest is Parties {
    function setUp() public virtual {
        deploy();
    }
}
