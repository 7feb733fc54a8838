// Package conformance checks a running system against the public protocol, from
// outside and without using any code of it: every endpoint and frame, every
// documented refusal, the defects of the original that must not come back
// (TestDefectNN), and who may do what (TestMatrix).
//
// Against any deployment whose auth service runs in debug mode and exempts the machine
// this runs on from its limits (IM_AUTH_LIMITS_EXEMPT, as make up does):
//
//	make conformance BASE=http://127.0.0.1:8000
//
// CONFORMANCE_GATEWAYS names single gateways of it, separated by commas, and
// CONFORMANCE_PROVIDER the host:port at which it expects a login provider (see
// providerEnv). With IM_E2E=1 and no base URL it starts a cluster of its own. Every run makes
// accounts of its own and leaves other people's data alone.
package conformance
