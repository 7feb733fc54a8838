// Package archtest holds the rules of the repository's shape as tests: who may
// import whom, one package comment per package, and where legacy spellings may
// be. It has no code of its own.
package archtest
