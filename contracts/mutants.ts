/**
 * Faults to plant in LeaseEscrow.sol, one at a time; each must make a test fail (`npm run mutate`). `find` stands in
 * the source once, and `put` compiles in its place.
 */
export interface Mutant {
  readonly name: string;
  readonly find: string;
  readonly put: string;
}

const rows: readonly (readonly [name: string, find: string, put: string])[] = [
  // Fund
  ["fund takes uneven arrays", "terms.length > 0 && terms.length == amounts.length,", "terms.length > 0,"],
  [
    "fund takes empty arrays",
    "terms.length > 0 && terms.length == amounts.length,",
    "terms.length == amounts.length,",
  ],
  ["fund sums only the last amount", "total += amounts[i];", "total = amounts[i];"],
  ["fund opens leases as from credit", "amounts[i], auth.from, false);", "amounts[i], auth.from, true);"],
  ["what arrives is not checked", "require(received == total,", "require(received <= total,"],
  ["a lease may be funded by nothing", "require(amount > 0, ZeroAmount(id));", ""],
  [
    "a lease may be funded at its expiry",
    "block.timestamp < terms.expiry,",
    "block.timestamp <= terms.expiry,",
  ],
  ["anyone's money opens a lease", "require(from == terms.payer, NotPayer(from, terms.payer));", ""],
  ["terms are not checked", "            _checkTerms(terms);\n", ""],
  [
    "a lease that is not open takes money",
    "require(lease.status == Status.Open, BadStatus(lease.status));",
    "",
  ],
  ["a top-up replaces what was there", "lease.funded += amount;", "lease.funded = amount;"],
  ["any payer is payable", "        _checkPayee(terms.payer);\n", ""],
  ["any provider is payable", "        _checkPayee(terms.provider);\n", ""],
  ["any fee recipient is payable", "if (terms.feeBps > 0) _checkPayee(terms.feeRecipient);", ""],
  ["no fee still needs a recipient", "if (terms.feeBps > 0) _checkPayee", "_checkPayee"],
  ["a payer may pay itself", "require(terms.payer != terms.provider, BadParty(terms.provider));", ""],
  ["the fee has no bound", "require(terms.feeBps <= MAX_FEE_BPS,", "require(terms.feeBps <= BPS,"],
  ["the fee's bound is exclusive", "terms.feeBps <= MAX_FEE_BPS,", "terms.feeBps < MAX_FEE_BPS,"],
  [
    "a consumer may be nobody",
    "require(terms.consumerSigner != address(0), BadParty(terms.consumerSigner));",
    "",
  ],
  [
    "an agent may be nobody",
    "require(terms.providerSigner != address(0), BadParty(terms.providerSigner));",
    "",
  ],
  ["a meter may be nobody", "require(terms.meter != address(0), BadParty(terms.meter));", ""],
  [
    "consumer and provider share a key",
    "require(terms.consumerSigner != terms.providerSigner, SharedKey(terms.consumerSigner));",
    "",
  ],
  [
    "consumer and meter share a key",
    "require(terms.consumerSigner != terms.meter, SharedKey(terms.meter));",
    "",
  ],
  [
    "provider and meter share a key",
    "require(terms.providerSigner != terms.meter, SharedKey(terms.meter));",
    "",
  ],
  ["a term may be a second too long", "block.timestamp + MAX_TERM;", "block.timestamp + MAX_TERM + 1;"],
  ["the escrow may be a payee", " && account != address(this)", ""],
  ["the token may be a payee", " && account != address(token)", ""],
  [
    "reentering is not refused",
    "external\n        nonReentrant\n    {\n        require(\n",
    "external\n    {\n        require(\n",
  ],
  // Deposit
  ["a deposit may be nothing", "require(amount > 0, ZeroAmount(0));", ""],
  ["a deposit may be for nobody", "require(spender != address(0), BadParty(spender));", ""],
  ["a deposit may name no meter", "require(meter != address(0), BadParty(meter));", ""],
  ["a spender may be its own meter", "require(spender != meter, SharedKey(meter));", ""],
  [
    "a revoked meter gets deposits",
    "        require(meterRevokedAt[meter] == 0, RevokedMeter(meter));\n        credits",
    "        credits",
  ],
  ["a deposit replaces the credit", "[meter].amount += amount;", "[meter].amount = amount;"],
  ["a deposit does not bind its salt", "meter, amount, auth.salt));", "meter, amount, bytes32(0)));"],
  // Allocate
  [
    "an allocation has no end",
    "require(block.timestamp < validBefore, Expired(validBefore));\n        require(\n            terms.length",
    "require(\n            terms.length",
  ],
  [
    "an allocation takes uneven arrays",
    "terms.length > 0 && terms.length == fundedTo.length,",
    "terms.length > 0,",
  ],
  [
    "noise allocates for nobody",
    "require(signer != address(0) && signer == first.consumerSigner,",
    "require(signer == first.consumerSigner,",
  ],
  [
    "anyone allocates with the meter",
    "signer != address(0) && signer == first.consumerSigner,",
    "signer != address(0),",
  ],
  ["the spender allocates alone", "        _checkCosign(digest, meterSig, first.meter);\n", ""],
  ["an allocation of nothing passes", "require(total > 0, NothingToAllocate());", ""],
  ["credit is not debited", "credit.amount -= uint88(total);", "credit.amount -= 0;"],
  ["leases of another payer pass", "each.payer == first.payer && ", ""],
  ["leases of another spender pass", "each.consumerSigner == first.consumerSigner\n", "true\n"],
  ["leases of another meter pass", "\n                    && each.meter == first.meter,", ","],
  [
    "targets are increments",
    "_fund(ids[i], each, fundedTo[i] - funded, first.payer, true);",
    "_fund(ids[i], each, fundedTo[i], first.payer, true);",
  ],
  ["credit opens leases as the wallet's", "funded, first.payer, true);", "funded, first.payer, false);"],
  ["money of a credit's lease goes to the payer", "if (lease.fromCredit) {", "if (false) {"],
  ["money of a wallet's lease goes to credit", "if (lease.fromCredit) {", "if (true) {"],
  // Release, ReclaimCredit
  [
    "a release has no end",
    "require(block.timestamp < validBefore, Expired(validBefore));\n        bytes32 digest =\n            _hash",
    "bytes32 digest =\n            _hash",
  ],
  ["anyone releases", "require(_signedByOwner(payer, spender, digest, signature), BadSignature(payer));", ""],
  ["a release serves again", "releaseUsed[digest] = true;", ""],
  [
    "a used release is never hastened",
    "!releaseUsed[digest] || (cosigned && releaseAt > 0)",
    "!releaseUsed[digest]",
  ],
  ["a used release is always hastened", "(cosigned && releaseAt > 0)", "cosigned"],
  ["a used release begins again", "(cosigned && releaseAt > 0)", "releaseAt > 0 || block.timestamp > 0"],
  [
    "a forged meter hastens a release",
    "            _checkCosign(digest, meterSig, meter);\n            _returnCredit",
    "            _returnCredit",
  ],
  ["a second request postpones", "require(releaseAt == 0, ReleasePending(releaseAt));", ""],
  ["an empty credit is released", "require(credit.amount > 0, NothingOwed(payer));", ""],
  ["a release does not wait", "releaseAt = block.timestamp + RELEASE_DELAY;", "releaseAt = block.timestamp;"],
  ["credit is reclaimed without a release", "require(releaseAt > 0, NoRelease());", ""],
  ["credit is reclaimed early", "require(block.timestamp >= releaseAt, TooEarly(releaseAt));", ""],
  ["credit is reclaimed late", "block.timestamp >= releaseAt,", "block.timestamp > releaseAt,"],
  ["released credit stays", "delete credits[payer][spender][meter];", ""],
  [
    "released credit is lost",
    "        owed[payer] += amount;\n        emit CreditReleased",
    "        emit CreditReleased",
  ],
  // Settle, Close
  ["a replayed voucher passes", "require(newPaid > lease.paid,", "require(newPaid >= lease.paid,"],
  ["the settled cumulative is not kept", "leases[id].paid = newPaid;", ""],
  [
    "a close stands for ever",
    "require(block.timestamp < validBefore, Expired(validBefore));\n        require(pair.roles",
    "require(pair.roles",
  ],
  ["a close needs no provider", "require(pair.roles & PROVIDER != 0, BadRoles(pair.roles));", ""],
  ["an older close passes", "require(cumulative >= lease.paid, Stale(lease.paid));", ""],
  ["a close pays above the caps", "require(cumulative <= limit, AboveDue(cumulative, limit));", ""],
  ["a close keeps the old cumulative", "lease.paid = cumulative;", ""],
  ["a closed lease is live", " && lease.status != Status.Closed, BadStatus", ", BadStatus"],
  [
    "a lease that never was is live",
    "lease.status != Status.None && lease.status != Status.Closed, Bad",
    "lease.status != Status.Closed, Bad",
  ],
  ["one role is a pair", "roles == PROVIDER | METER,", "roles == PROVIDER | METER || roles == METER,"],
  [
    "the first signature of a pair is not read",
    "if (roles & CONSUMER == 0) _checkSignature(digest, pair.a, terms.providerSigner);",
    "if (roles & CONSUMER == 0) {}",
  ],
  [
    "the consumer's signature is not read",
    "else _checkConsumer(digest, pair.a, consumerKey, terms.consumerSigner);",
    "",
  ],
  [
    "the second signature of a pair is the agent's",
    "roles & METER == 0 ? terms.providerSigner : terms.meter",
    "terms.providerSigner",
  ],
  [
    "an allowance needs no signature",
    "        _checkConsumer(_hashTypedDataV4(structHash), allowance.sig, consumerKey, terms.consumerSigner);\n",
    "structHash;\n",
  ],
  [
    "any key signs",
    "require(recovered != address(0) && recovered == signer,",
    "require(recovered != address(0),",
  ],
  ["a voucher above the funding pays", "Math.min(cumulative, lease.funded)", "cumulative"],
  [
    "an exit stops no clock",
    "uint256 until = lease.status == Status.Open ? block.timestamp : lease.exitAt;",
    "uint256 until = block.timestamp;",
  ],
  ["expiry stops no clock", "until = Math.min(until, terms.expiry);", ""],
  ["revocation stops no clock", "if (revokedAt > 0) until = Math.min(until, revokedAt);", "revokedAt;"],
  [
    "revocation stops every clock",
    "roles & METER == 0 ? 0 : meterRevokedAt[terms.meter]",
    "meterRevokedAt[terms.meter]",
  ],
  ["the rate is per second", "(until - lease.openedAt) / 1 hours;", "(until - lease.openedAt);"],
  ["there is no upfront", "Math.min(limit, terms.upfront + billed)", "Math.min(limit, billed)"],
  ["there is never a cap", "limit = Math.min(limit, terms.upfront + billed);", "billed;"],
  ["nothing is bounded unattended", "if (roles & CONSUMER == 0) limit =", "if (false) limit ="],
  ["all is bounded as if unattended", "if (roles & CONSUMER == 0) limit =", "if (true) limit ="],
  [
    "allowance and unattended both bound",
    "Math.max(terms.unattended, allowance)",
    "Math.min(terms.unattended, allowance)",
  ],
  [
    "the fee is of each step",
    "newPaid * terms.feeBps / BPS - paid * terms.feeBps / BPS",
    "(newPaid - paid) * terms.feeBps / BPS",
  ],
  ["the fee is kept by nobody", "if (fee > 0) owed[terms.feeRecipient] += fee;", ""],
  ["the provider gets the fee too", "+= newPaid - paid - fee;", "+= newPaid - paid;"],
  ["the provider's account is replaced", "owed[terms.provider] += newPaid", "owed[terms.provider] = newPaid"],
  // RequestExit, Reclaim, RevokeMeter
  [
    "an exit is asked twice",
    "lease.status == Status.Open || (cosigned && lease.status == Status.Exiting),",
    "true,",
  ],
  [
    "an exit is never hastened",
    "lease.status == Status.Open || (cosigned && lease.status == Status.Exiting),",
    "lease.status == Status.Open,",
  ],
  ["anyone exits", "_signedByOwner(terms.payer, terms.consumerSigner, digest, signature), Bad", "true, Bad"],
  [
    "a forged meter hastens an exit",
    "        if (cosigned) _checkCosign(digest, meterSig, terms.meter);\n",
    "",
  ],
  ["hastening starts the clock anew", "if (lease.status == Status.Open) lease.exitAt =", "lease.exitAt ="],
  [
    "every exit is hastened",
    "lease.status = cosigned ? Status.ExitingCosigned : Status.Exiting;",
    "lease.status = Status.ExitingCosigned;",
  ],
  [
    "no exit is hastened",
    "lease.status = cosigned ? Status.ExitingCosigned : Status.Exiting;",
    "lease.status = Status.Exiting;",
  ],
  ["the rest is free early", "require(block.timestamp >= notBefore, TooEarly(notBefore));", ""],
  ["the rest is free late", "require(block.timestamp >= notBefore,", "require(block.timestamp > notBefore,"],
  [
    "an exit after expiry delays",
    "return Math.min(byExpiry, lease.exitAt + delay);",
    "byExpiry; return lease.exitAt + delay;",
  ],
  ["expiry needs no delay", "uint256 byExpiry = expiry + EXIT_DELAY;", "uint256 byExpiry = expiry;"],
  ["the rest of a lease is lost", "owed[terms.payer] += rest;", ""],
  ["an ended lease stays open", "lease.status = Status.Closed;", ""],
  [
    "the payer's key does not exit",
    "(signer == payer || signer == key)) return true;",
    "(signer == key)) return true;",
  ],
  [
    "the consumer's key does not exit",
    "(signer == payer || signer == key)) return true;",
    "(signer == payer)) return true;",
  ],
  ["a wallet is not asked", "return ok && answer.length >= 32", "return false && ok && answer.length >= 32"],
  ["a short answer is a yes", "return ok && answer.length >= 32\n            &&", "return ok &&"],
  ["any answer is a yes", "bytes32(answer) == bytes32(IERC1271.isValidSignature.selector)", "true"],
  ["a failing wallet's answer counts", "return ok && answer.length", "return answer.length"],
  ["a wallet has all the gas", "payer.staticcall{gas: ERC1271_GAS}(", "payer.staticcall("],
  [
    "anyone revokes a meter",
    "        _checkSignature(digest, sig, meter);\n        require(meterRevokedAt[meter] == 0, RevokedMeter(meter));\n        meterRevokedAt",
    "        digest; sig;\n        require(meterRevokedAt[meter] == 0, RevokedMeter(meter));\n        meterRevokedAt",
  ],
  [
    "a meter resigns again, later",
    "require(meterRevokedAt[meter] == 0, RevokedMeter(meter));\n        meterRevokedAt",
    "meterRevokedAt",
  ],
  [
    "a revoked meter opens leases",
    "require(meterRevokedAt[terms.meter] == 0, RevokedMeter(terms.meter));",
    "",
  ],
  [
    "a revoked meter co-signs",
    "require(meterRevokedAt[meter] == 0, RevokedMeter(meter));\n        _checkSignature",
    "_checkSignature",
  ],
  // P256
  [
    "any P-256 key signs",
    "require(_p256Signer(digest, sig.r, sig.vs, key.x, key.y) == consumerSigner,",
    "require(_p256Signer(digest, sig.r, sig.vs, key.x, key.y) != address(0),",
  ],
  [
    "a P-256 signature is not checked",
    "if (!P256.verifyNative(sha256(bytes.concat(digest)), r, s, x, y)) return address(0);",
    "if (false) return address(uint160(uint256(digest ^ r ^ s)));",
  ],
  [
    "P-256 signs the bare digest",
    "P256.verifyNative(sha256(bytes.concat(digest)), r",
    "P256.verifyNative(digest, r",
  ],
  ["a P-256 key is known by x alone", "keccak256(bytes.concat(x, y))", "keccak256(bytes.concat(x))"],
  ["128 bytes are no P-256 signature", "if (signature.length == 128) {", "if (false) {"],
  // Withdraw, Views
  ["nothing is withdrawn", "require(amount > 0, NothingOwed(account));", ""],
  ["what was withdrawn is still owed", "owed[account] = 0;", ""],
  [
    "a withdrawal goes to the caller",
    "token.safeTransfer(account, amount);",
    "token.safeTransfer(msg.sender, amount);",
  ],
  [
    "a closed lease owes what was signed",
    "lease.status == Status.None || lease.status == Status.Closed) return lease.paid;",
    "lease.status == Status.None) return lease.paid;",
  ],
  [
    "a cosigned exit may wait for ever",
    "cosignedExitDelay > 0 && cosignedExitDelay <= exitDelay, BadDelays",
    "cosignedExitDelay > 0, BadDelays",
  ],
  [
    "a cosigned exit may not wait",
    "cosignedExitDelay > 0 && cosignedExitDelay <= exitDelay, BadDelays",
    "cosignedExitDelay <= exitDelay, BadDelays",
  ],
  ["the token may be no contract", "require(address(token_).code.length > 0, NoToken(address(token_)));", ""],
];

export const mutants: readonly Mutant[] = rows.map(([name, find, put]) => ({ name, find, put }));
