// Package archtest holds the rules of the repository's shape as tests: who may
// import whom, one package comment per package, where legacy spellings may be,
// that every promise has the tests that the docs name, and that what ships beside
// the code is right: Compose files, commands in docs. It has no code of its own.
package archtest
