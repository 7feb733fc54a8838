// Package archtest holds the rules of the repository's shape as tests: who may
// import whom, one package comment per package, where legacy spellings may be,
// and that every promise has the tests that the docs name. It has no code of its
// own.
package archtest
