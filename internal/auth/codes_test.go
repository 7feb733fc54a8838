package auth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
)

// tryCode registers the address with a code and returns the error.
func (e *env) tryCode(email, code string) error {
	_, err := e.Register(e.t.Context(), &authv1.RegisterRequest{Email: email, Name: email, Password: goodPassword, Code: code})
	return err
}

// forgetPause lets the next code be sent at once.
func (e *env) forgetPause(email string) {
	require.NoError(e.t, e.rdb.Del(e.t.Context(), "rate:auth:mail:pause:"+e.pseudonym(email)).Err())
}

// Defect 27: codes were predictable, reusable and could be guessed without end.
func TestDefect27_CodeWorksOnce(t *testing.T) {
	e := newEnv(t)
	code := e.ask("a@example.com", forRegister)
	require.NoError(t, e.tryCode("a@example.com", code))
	_, err := e.db.Exec("DELETE FROM users WHERE email = 'a@example.com'")
	require.NoError(t, err)
	requireReason(t, "code_wrong", e.tryCode("a@example.com", code))
}

func TestDefect27_FiveWrongTriesKillACode(t *testing.T) {
	e := newEnv(t)
	code := e.ask("a@example.com", forRegister)
	for i := range 4 {
		requireReason(t, "code_wrong", e.tryCode("a@example.com", otherCode(code, i)))
	}
	require.NoError(t, e.tryCode("a@example.com", code), "four wrong tries do not")

	code = e.ask("b@example.com", forRegister)
	for i := range 5 {
		requireReason(t, "code_wrong", e.tryCode("b@example.com", otherCode(code, i)))
	}
	requireReason(t, "code_wrong", e.tryCode("b@example.com", code))
}

// All ten thousand codes at once: only as many as are allowed are looked at.
func TestDefect27_ParallelGuessesStopAtFive(t *testing.T) {
	e := newEnv(t)
	e.ask("a@example.com", forRegister)
	purpose, who := "register", e.pseudonym("a@example.com")
	key := codeKey(purpose, who)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 100 {
				_, ok, _, err := e.codes.spend(context.Background(), purpose, who, e.codeMAC(purpose, "a@example.com", fmt.Sprintf("x%d%d", w, i)))
				if ok || err != nil {
					t.Errorf("ok %v, err %v", ok, err)
				}
			}
		})
	}
	wg.Wait()
	n, err := e.rdb.Exists(t.Context(), key).Result()
	require.NoError(t, err)
	require.Zero(t, n, "the code is gone")
}

func TestDefect27_CodeIsBoundToAddressAndPurpose(t *testing.T) {
	e := newEnv(t)
	code := e.ask("a@example.com", forRegister)
	other := e.ask("b@example.com", forRegister)
	if code != other { // one in ten thousand
		requireReason(t, "code_wrong", e.tryCode("b@example.com", code))
	}
	requireReason(t, "code_wrong", e.tryCode("c@example.com", code), "an address that has none")
	_, err := e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: "a@example.com", Code: code, Password: goodPassword})
	requireReason(t, "code_wrong", err)
	require.NoError(t, e.tryCode("a@example.com", code), "neither of them spent it")
	require.NotEqual(t, e.codeMAC("register", "a@example.com", "1234"), e.codeMAC("reset", "a@example.com", "1234"))
}

func TestDefect27_MissingCodeMatchesNothing(t *testing.T) {
	e := newEnv(t)
	for _, code := range []string{"", "0000", "null", "    ", "\x00\x00\x00\x00", "12345", "1", "零一二三"} {
		requireReason(t, "code_wrong", e.tryCode("a@example.com", code), "%q", code)
	}
	_, ok, _, err := e.codes.spend(t.Context(), "register", e.pseudonym("a@example.com"), nil)
	require.NoError(t, err)
	require.False(t, ok)
	e.ask("a@example.com", forRegister)
	_, ok, _, err = e.codes.spend(t.Context(), "register", e.pseudonym("a@example.com"), nil)
	require.NoError(t, err)
	require.False(t, ok, "the empty MAC is not the code either")
}

func TestDefect27_CodeExpires(t *testing.T) {
	e := newEnv(t)
	code := e.ask("a@example.com", forRegister)
	key := codeKey("register", e.pseudonym("a@example.com"))
	ttl, err := e.rdb.PTTL(t.Context(), key).Result()
	require.NoError(t, err)
	require.InDelta(t, 300, ttl.Seconds(), 5)
	requireReason(t, "code_wrong", e.tryCode("a@example.com", otherCode(code, 1)))
	after, err := e.rdb.PTTL(t.Context(), key).Result()
	require.NoError(t, err)
	require.LessOrEqual(t, after, ttl, "a wrong try does not draw it out")
	require.NoError(t, e.rdb.PExpire(t.Context(), key, time.Millisecond).Err())
	require.Eventually(t, func() bool { return e.rdb.Exists(t.Context(), key).Val() == 0 }, 10*time.Second, 5*time.Millisecond)
	requireReason(t, "code_wrong", e.tryCode("a@example.com", code))
}

func TestDefect27_SendingIsLimited(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.Limits.CodesPerHour = 8 })
	send := func(email, ip string) error {
		_, err := e.SendEmailCode(t.Context(), &authv1.SendEmailCodeRequest{Email: email, Purpose: forRegister, PeerIp: ip})
		return err
	}
	require.NoError(t, send("a@example.com", "198.51.100.1"))
	first := e.mails.code("register", "a@example.com")
	err := send("A@example.com", "198.51.100.1")
	requireReason(t, "code_too_often", err)
	var limit *im.Error
	require.ErrorAs(t, err, &limit)
	require.InDelta(t, 60, limit.RetryAfter.Seconds(), 2)
	require.Equal(t, first, e.mails.code("register", "a@example.com"), "the refused request did not replace the code")

	for range 4 {
		e.forgetPause("a@example.com")
		require.NoError(t, send("a@example.com", "198.51.100.1"))
	}
	e.forgetPause("a@example.com")
	requireReason(t, "code_too_often", send("a@example.com", "198.51.100.1"), "the sixth in an hour")
	require.NoError(t, send("b@example.com", "198.51.100.1"))
	requireReason(t, "auth_too_often", send("c@example.com", "198.51.100.1"), "the ninth request of one address")
	require.NoError(t, send("c@example.com", "198.51.100.77"))
	require.Equal(t, 7, e.mails.sent)
}

// The public contract has the 60 s pause in debug mode too.
func TestDefect27_PauseHoldsInDebugMode(t *testing.T) {
	e := newEnv(t, debugMode)
	e.ask("a@example.com", forRegister)
	_, err := e.SendEmailCode(t.Context(), &authv1.SendEmailCodeRequest{Email: "a@example.com", Purpose: forRegister})
	requireReason(t, "code_too_often", err)
	require.NoError(t, e.tryCode("a@example.com", "abcd"), "debug: any four characters")
	require.NoError(t, e.tryCode("b@example.com", "验证码啊"), "debug: characters, not bytes")
}

func TestDefect27_ANewCodeReplacesTheOld(t *testing.T) {
	e := newEnv(t)
	old := e.ask("a@example.com", forRegister)
	for i := range 4 {
		requireReason(t, "code_wrong", e.tryCode("a@example.com", otherCode(old, i)))
	}
	e.forgetPause("a@example.com")
	fresh := e.ask("a@example.com", forRegister)
	if old != fresh {
		requireReason(t, "code_wrong", e.tryCode("a@example.com", old))
	}
	require.NoError(t, e.tryCode("a@example.com", fresh), "the new one has all its tries")
}

// However many codes one asks for, ten guesses are all there are in a day: of any
// address, for any purpose. Nothing else of the account is held.
func TestDefect27_TenWrongCodesHoldAnAddressForADay(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.Limits.LoginsPerMinute = 1000 })
	const victim = "a@example.com"
	require.NoError(t, e.tryCode(victim, e.ask(victim, forRegister)))
	reset := func(code string) error {
		_, err := e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: victim, Code: code, Password: goodPassword})
		return err
	}
	for range 20 {
		requireReason(t, "code_wrong", reset("0000"), "no code was sent: nothing to guess, nothing to count")
	}
	code := ""
	for i := range 10 {
		if i%5 == 0 {
			e.forgetPause(victim)
			code = e.ask(victim, forReset)
		}
		requireReason(t, "code_wrong", reset(otherCode(code, i)))
	}
	// A code that was sent at the last moment: the right one does not count either.
	purpose, who := "reset", e.pseudonym(victim)
	require.NoError(t, e.codes.put(t.Context(), purpose, who, e.codeMAC(purpose, victim, "1234")))
	waits := func(err error) time.Duration {
		requireReason(t, "auth_too_often", err)
		var limit *im.Error
		require.ErrorAs(t, err, &limit)
		return limit.RetryAfter
	}
	require.InDelta(t, 24*3600, waits(reset("1234")).Seconds(), 60)
	sent := e.mails.sent
	e.forgetPause(victim)
	_, err := e.SendEmailCode(t.Context(), &authv1.SendEmailCodeRequest{Email: victim, Purpose: forReset})
	require.InDelta(t, 24*3600, waits(err).Seconds(), 60)
	require.Equal(t, sent, e.mails.sent)

	e.mustLogin(victim)
	require.NoError(t, e.tryCode("b@example.com", e.ask("b@example.com", forRegister)), "another address")
	e.forgetPause("b@example.com")
	code = e.ask("b@example.com", forReset)
	_, err = e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: "b@example.com", Code: code, Password: goodPassword})
	require.NoError(t, err)
	requireReason(t, "auth_too_often", reset("1234"), "the success of another gives nobody new tries")
	require.NoError(t, e.codes.put(t.Context(), "register", who, e.codeMAC("register", victim, "1234")))
	_, ok, _, err := e.codes.spend(t.Context(), "register", who, e.codeMAC("register", victim, "1234"))
	require.NoError(t, err)
	require.True(t, ok, "another purpose")

	// The day ends as it began; a right code in it gave no new tries.
	require.NoError(t, e.rdb.PExpire(t.Context(), wrongKey(purpose, who), time.Millisecond).Err())
	require.Eventually(t, func() bool { return reset("1234") == nil }, 10*time.Second, 5*time.Millisecond)
}

func TestDefect27_ARightCodeForgivesNoWrongOnes(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.Codes.TriesPerDay = 3 })
	require.NoError(t, e.tryCode("a@example.com", e.ask("a@example.com", forRegister)))
	reset := func(code string) error {
		_, err := e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: "a@example.com", Code: code, Password: goodPassword})
		return err
	}
	ask := func() string {
		e.forgetPause("a@example.com")
		return e.ask("a@example.com", forReset)
	}
	code := ask()
	for i := range 2 {
		requireReason(t, "code_wrong", reset(otherCode(code, i)))
	}
	before := e.rdb.PTTL(t.Context(), wrongKey("reset", e.pseudonym("a@example.com"))).Val()
	require.NoError(t, reset(code))
	code = ask()
	requireReason(t, "code_wrong", reset(otherCode(code, 2)))
	requireReason(t, "auth_too_often", reset(code))
	require.LessOrEqual(t, e.rdb.PTTL(t.Context(), wrongKey("reset", e.pseudonym("a@example.com"))).Val(), before, "nor does a wrong one begin another day")
}

func TestDefect27_CodesAreSpread(t *testing.T) {
	seen := map[string]bool{}
	var digits [10]int
	for range 2000 {
		c := newCode()
		require.Len(t, c, codeLen)
		seen[c] = true
		for _, d := range c {
			digits[d-'0']++
		}
	}
	require.Greater(t, len(seen), 1700, "about 1,813 different ones of 2,000 are expected")
	for d, n := range digits {
		require.InDelta(t, 800, n, 160, "digit %d", d)
	}
}

func TestSendEmailCode_SaysWhatIsTaken(t *testing.T) {
	e := newEnv(t)
	require.NoError(t, e.tryCode("a@example.com", e.ask("a@example.com", forRegister)))
	for _, c := range []struct {
		email   string
		purpose authv1.CodePurpose
		reason  string
	}{
		{"a@example.com", forRegister, "email_taken"},
		{"b@example.com", forReset, "email_unknown"},
		{"bot@im.invalid", forReset, "email_unknown"},
		{"b@example.com", 0, "email_type_invalid"},
		{"b@example.com", 7, "email_type_invalid"},
		{"b@example.com\r\nBcc: x@example.com", forRegister, "email_invalid"},
		{"", forRegister, "email_invalid"},
	} {
		_, err := e.SendEmailCode(t.Context(), &authv1.SendEmailCodeRequest{Email: c.email, Purpose: c.purpose})
		requireReason(t, c.reason, err, "%q", c.email)
	}
	require.Equal(t, 1, e.mails.sent)
	require.NoError(t, e.tryCode("b@example.com", e.ask("b@example.com", forRegister)), "no refusal used up the pause")
}

func TestSendEmailCode_MailFails(t *testing.T) {
	e := newEnv(t)
	e.mails.err = mailNotSent(errors.New("550 no"))
	_, err := e.SendEmailCode(t.Context(), &authv1.SendEmailCodeRequest{Email: "a@example.com", Purpose: forRegister})
	requireReason(t, "mail_not_sent", err)
	e.mails.err = nil
	e.ask("a@example.com", forRegister) // at once: nothing had arrived
}

func TestRegister_TakenNameDoesNotSpendTheCode(t *testing.T) {
	e := newEnv(t)
	code := e.ask("a@example.com", forRegister)
	_, err := e.Register(t.Context(), &authv1.RegisterRequest{Email: "a@example.com", Name: "机器人", Password: goodPassword, Code: code})
	requireReason(t, "name_taken", err)
	require.NoError(t, e.tryCode("a@example.com", code))
}

// A code is one use, and what was refused as not done was none.
func TestDefect27_ACodeIsGivenBackIfNothingWasDone(t *testing.T) {
	e := newEnv(t)
	require.NoError(t, e.tryCode("a@example.com", e.ask("a@example.com", forRegister)))
	e.forgetPause("a@example.com")
	code := e.ask("a@example.com", forReset)
	reset := func(wait time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		_, err := e.ResetPassword(ctx, &authv1.ResetPasswordRequest{Email: "a@example.com", Code: code, Password: "another password"})
		return err
	}
	key := codeKey("reset", e.pseudonym("a@example.com"))
	before, err := e.rdb.PTTL(t.Context(), key).Result()
	require.NoError(t, err)

	release := e.hold("a@example.com")
	requireReason(t, "service_unavailable", reset(500*time.Millisecond))
	release()

	after, err := e.rdb.PTTL(t.Context(), key).Result()
	require.NoError(t, err)
	require.Positive(t, after)
	require.LessOrEqual(t, after, before, "it ends when it would have ended")
	require.NoError(t, reset(10*time.Second))
	requireReason(t, "code_wrong", reset(10*time.Second))
}

// A newer code is not replaced by one that is given back.
func TestDefect27_ACodeGivenBackReplacesNone(t *testing.T) {
	e := newEnv(t)
	e.ask("a@example.com", forRegister)
	who := e.pseudonym("a@example.com")
	require.NoError(t, e.codes.restore(t.Context(), spentCode{"register", who, []byte("older"), time.Minute}))
	_, ok, _, err := e.codes.spend(t.Context(), "register", who, []byte("older"))
	require.NoError(t, err)
	require.False(t, ok)
}
