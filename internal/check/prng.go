package check

import (
	"hash/fnv"
	"math/rand/v2"
	"strconv"
)

// prng returns the randomness of one actor. It depends on the seed and the
// actor's name alone, so that another actor does not change what this one does.
func prng(seed uint64, name string, n int) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name + "/" + strconv.Itoa(n)))
	return rand.New(rand.NewPCG(seed, h.Sum64())) //nolint:gosec // to be repeated, not secret
}

func intText(n int64) string   { return strconv.FormatInt(n, 10) }
func uintText(n uint64) string { return strconv.FormatUint(n, 10) }
