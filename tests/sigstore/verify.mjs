// Verifies a Sigstore bundle with a public key and without a network: node verify.mjs BUNDLE PUB
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { bundleFromJSON } from "@sigstore/bundle";
import { toSignedEntity, Verifier } from "@sigstore/verify";

const [bundlePath, keyPath] = process.argv.slice(2);
const bundle = bundleFromJSON(JSON.parse(readFileSync(bundlePath, "utf8")));
const publicKey = createPublicKey(readFileSync(keyPath, "utf8"));
const trusted = {
  certificateAuthorities: [],
  timestampAuthorities: [],
  tlogs: [],
  ctlogs: [],
  publicKey: () => ({ publicKey, validFor: () => true }),
};
const offline = { tlogThreshold: 0, ctlogThreshold: 0, tsaThreshold: 0 };
new Verifier(trusted, offline).verify(toSignedEntity(bundle));
console.log("verified");
