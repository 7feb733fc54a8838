package logic

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"im-services/internal/im"
)

const (
	// refusalLasts is longer than a copy of a send may be on its way, see
	// SendStreamRequest.not_after_us, and in its lane.
	refusalLasts = 10 * time.Second
	// refusalsKept bounds the refusals that are remembered.
	refusalsKept = 1 << 16
)

// refusals remembers for a while what was refused, and on which connection. Its
// client may have sent it on another one before, which is gone: that copy may still
// be on its way. By the time it comes the send may be allowed, but its client knows
// that it was refused. So it is not stored, and not answered; a client that is there
// after all asks again. All that comes over HTTP through one gateway counts as one
// connection: it keeps their order.
type refusals struct{ kept *lru.Cache[sendKey, refusal] }

type refusal struct {
	origin string
	at     time.Time
}

func newRefusals() refusals {
	kept, err := lru.New[sendKey, refusal](refusalsKept)
	if err != nil {
		panic(err) // the size is a constant
	}
	return refusals{kept}
}

// note remembers a refusal on the connection origin, as Send names it.
func (r refusals) note(k sendKey, origin string) { r.kept.Add(k, refusal{origin, time.Now()}) }

// elsewhere reports whether the send was refused lately on another connection.
func (r refusals) elsewhere(k sendKey, origin string) bool {
	last, ok := r.kept.Get(k)
	return ok && origin != "" && last.origin != origin && time.Since(last.at) < refusalLasts
}

// noteRefusals remembers what the plan refuses because its sender may not speak.
func (s *store) noteRefusals(p *batchPlan) {
	for i, r := range p.batch {
		if origin := r.send.GetOrigin(); origin != "" && im.KindOf(p.outcomes[i].err) == im.KindForbidden {
			s.refusals.note(p.key(i), origin)
		}
	}
}
