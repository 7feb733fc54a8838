package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
)

// codeLen is the length of an e-mail code, in digits.
const codeLen = 4

// wrongCodeMemory is how long wrong codes are counted together, from the first.
const wrongCodeMemory = 24 * time.Hour

// codes keeps e-mail codes in Redis: at most one per purpose and address, as a
// MAC, with the number of wrong tries. Those of a day are counted beside it: a new
// code can be asked for when one is dead, and there are ten thousand only. Safe for
// concurrent use.
type codes struct {
	rdb *redis.Client
	cfg CodeConfig
}

func codeKey(purpose, who string) string { return "auth:code:" + purpose + ":" + who }

func wrongKey(purpose, who string) string { return "auth:wrong:" + purpose + ":" + who }

// held returns 0, or how long no code of who counts, as too many were wrong.
func (c *codes) held(ctx context.Context, purpose, who string) (time.Duration, error) {
	ms, err := heldScript.Run(ctx, c.rdb, []string{wrongKey(purpose, who)}, c.cfg.TriesPerDay).Int64()
	return time.Duration(ms) * time.Millisecond, err
}

// put makes mac the code of who, with all its tries, instead of an older one.
func (c *codes) put(ctx context.Context, purpose, who string, mac []byte) error {
	key := codeKey(purpose, who)
	_, err := c.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Del(ctx, key)
		p.HSet(ctx, key, "mac", mac, "tries", 0)
		p.PExpire(ctx, key, c.cfg.TTL)
		return nil
	})
	return err
}

// spentCode is a code that was right, and how long it would have been good for.
type spentCode struct {
	purpose, who string
	mac          []byte
	left         time.Duration
}

// spend reports whether mac is the code of who, which is then gone, or that who is
// held. A wrong one counts; the code is gone after too many. No code matches
// nothing, and guessing at none costs nothing.
func (c *codes) spend(ctx context.Context, purpose, who string, mac []byte) (spent spentCode, ok bool, held time.Duration, err error) {
	n, err := spendScript.Run(ctx, c.rdb, []string{codeKey(purpose, who), wrongKey(purpose, who)},
		c.cfg.TriesPerDay, mac, c.cfg.Tries, wrongCodeMemory.Milliseconds()).Int64()
	ms := time.Duration(n) * time.Millisecond
	if n < 0 {
		return spentCode{purpose, who, mac, -ms}, true, 0, err
	}
	return spentCode{}, false, ms, err
}

// restore makes a spent code good again for the rest of its time, unless there is
// a newer one.
func (c *codes) restore(ctx context.Context, s spentCode) error {
	return restoreScript.Run(ctx, c.rdb, []string{codeKey(s.purpose, s.who)}, s.mac, s.left.Milliseconds()).Err()
}

// heldLua returns the ms that KEYS[#KEYS] is held. ARGV[1]: wrong codes in a day.
const heldLua = `
local wrong = KEYS[#KEYS]
if tonumber(redis.call('GET', wrong) or '0') >= tonumber(ARGV[1]) then
  return math.max(1, redis.call('PTTL', wrong))
end
`

var heldScript = redis.NewScript(heldLua + `return 0`)

// spendScript returns for a right code minus the ms that it would have been good
// for, for a wrong one 0, and if who is held, for how many ms.
var spendScript = redis.NewScript(heldLua + `
local mac = redis.call('HGET', KEYS[1], 'mac')
if not mac then
  return 0
end
if mac == ARGV[2] then
  local left = redis.call('PTTL', KEYS[1])
  redis.call('DEL', KEYS[1])
  return -math.max(1, left)
end
if redis.call('INCR', wrong) == 1 then
  redis.call('PEXPIRE', wrong, ARGV[4])
end
if redis.call('HINCRBY', KEYS[1], 'tries', 1) >= tonumber(ARGV[3]) then
  redis.call('DEL', KEYS[1])
end
return 0
`)

var restoreScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'mac', ARGV[1], 'tries', 0)
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
`)

// purposeName is the name of a purpose in keys; "" for one that there is not.
func purposeName(p authv1.CodePurpose) string {
	switch p {
	case authv1.CodePurpose_CODE_PURPOSE_REGISTER:
		return "register"
	case authv1.CodePurpose_CODE_PURPOSE_RESET:
		return "reset"
	}
	return ""
}

// codeMAC binds a code to its purpose and address.
func (s *Server) codeMAC(purpose, email, code string) []byte {
	return s.mac("code", purpose+"\x00"+email+"\x00"+code)
}

func newCode() string {
	n, err := rand.Int(rand.Reader, big.NewInt(10_000))
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return fmt.Sprintf("%0*d", codeLen, n)
}

// sendCode mails a fresh code. It says whether the address has an account,
// which the public contract wants.
func (s *Server) sendCode(ctx context.Context, rawEmail string, p authv1.CodePurpose, peer string) error {
	email, err := cleanEmail(rawEmail)
	if err != nil {
		return im.E(im.KindInvalid, "email_invalid", err)
	}
	purpose := purposeName(p)
	if purpose == "" {
		return im.E(im.KindInvalid, "email_type_invalid", nil)
	}
	if err := s.limitPeer(ctx, "code", peer, s.cfg.Limits.CodesPerHour, time.Hour); err != nil {
		return err
	}
	a, err := s.store.accountByEmail(ctx, email)
	known := err == nil
	switch {
	case err != nil && !errors.Is(err, errNoRow):
		return err
	case p == authv1.CodePurpose_CODE_PURPOSE_REGISTER && known:
		return im.E(im.KindConflict, "email_taken", nil)
	case p == authv1.CodePurpose_CODE_PURPOSE_RESET && (!known || a.Bot):
		return im.E(im.KindNotFound, "email_unknown", nil)
	}
	who := s.pseudonym(email)
	held, err := s.codes.held(ctx, purpose, who)
	if err != nil {
		return im.E(im.KindUnavailable, "service_unavailable", err)
	}
	if held > 0 {
		return tooOften("auth_too_often", held) // the code would be good for nothing
	}
	if wait := s.limits.take(ctx, "mail:pause:"+who, 1, s.cfg.Codes.Resend); wait > 0 {
		return tooOften("code_too_often", wait)
	}
	if wait := s.limits.take(ctx, "mail:hour:"+who, s.cfg.Codes.PerHour, time.Hour); wait > 0 {
		return tooOften("code_too_often", wait)
	}
	err = s.mailCode(ctx, purpose, email, who)
	s.metrics.mails.WithLabelValues(resultOf(err)).Inc()
	if err != nil {
		s.limits.giveBack(context.WithoutCancel(ctx), "mail:pause:"+who) // nothing arrived: he may ask again at once
		s.log.LogAttrs(ctx, slog.LevelError, "e-mail code not sent", slog.String("purpose", purpose), slog.String("reason", im.ReasonOf(err)))
	}
	return err
}

// mailCode stores a code and then sends it, so that it works when it arrives.
func (s *Server) mailCode(ctx context.Context, purpose, email, who string) error {
	code := newCode()
	if err := s.codes.put(ctx, purpose, who, s.codeMAC(purpose, email, code)); err != nil {
		return im.E(im.KindUnavailable, "service_unavailable", err)
	}
	// The code stays if that fails: who gets the mail all the same can use it.
	return s.mailer.sendCode(ctx, email, purpose, code, s.cfg.Codes.TTL)
}

// spendCode uses a code up; the error is code_wrong for a wrong, used, expired
// or unknown one alike. After too many wrong ones none is looked at. In debug mode
// every code of the right length will do.
func (s *Server) spendCode(ctx context.Context, email string, p authv1.CodePurpose, code string) (spentCode, error) {
	wrong := im.E(im.KindInvalid, "code_wrong", nil)
	if !utf8.ValidString(code) || utf8.RuneCountInString(code) != codeLen {
		return spentCode{}, wrong
	}
	if s.cfg.Mode == ModeDebug {
		return spentCode{}, nil
	}
	purpose := purposeName(p)
	spent, ok, held, err := s.codes.spend(ctx, purpose, s.pseudonym(email), s.codeMAC(purpose, email, code))
	switch {
	case err != nil:
		return spentCode{}, im.E(im.KindUnavailable, "service_unavailable", err)
	case held > 0:
		s.log.LogAttrs(ctx, slog.LevelWarn, "e-mail codes held", slog.String("purpose", purpose), slog.Duration("wait", held))
		return spentCode{}, tooOften("auth_too_often", held)
	case !ok:
		return spentCode{}, wrong
	}
	return spent, nil
}

// unspend gives a code back if what it was spent on failed, with err, and was
// certainly not done: whoever is told to try again could not otherwise.
func (s *Server) unspend(ctx context.Context, spent spentCode, err error) {
	if err == nil || im.KindOf(err) == im.KindUnknown || spent.left == 0 {
		return
	}
	if err := s.codes.restore(context.WithoutCancel(ctx), spent); err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "e-mail code not given back", slog.String("purpose", spent.purpose), slog.Any("err", err))
	}
}
