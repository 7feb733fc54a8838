// Package auth owns users and everything that proves who they are: accounts,
// passwords, login sessions, e-mail codes, OAuth identities, signing keys and
// what was revoked.
//
// MySQL is the truth for all of it but four things that may be lost at any
// moment and live in Redis: e-mail codes, socket tickets, which OAuth states were
// used, and the counters of attempts. Without Redis, log in, refresh, log out,
// Keys, Revocations and the profiles go on; attempts are then counted per process.
//
// A login session begins at a login and has one chain of refresh tokens. Access
// tokens (package token) name their session. Five things end a session: Logout,
// the second use of a refresh token (somebody else has it too), unless it repeats
// an exchange whose answer may be lost, a login of a user who has very many
// already, and a new password and a ban, which end all of the user's. Each writes a revocation, which gateways poll, in the
// transaction that ends the session.
//
// Every time that is stored or put into a token is the database's: a replica's own
// clock may be wrong.
//
// Locks are taken in this order: user, login session, refresh token, then the
// revocations' id row; so a login, a refresh and a reset of one user happen one
// after the other, and none issues a token past a reset that it did not see.
//
// Nothing here logs a password, code, token, ticket or e-mail address, but the
// `log` mail driver, which exists to show the code and is refused outside debug
// mode.
package auth
