package check

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"im-services/internal/imclient"
)

// canaryMark begins every message text of the checker.
const canaryMark = "im1|"

// convKey names a conversation before the server has given it an id.
type convKey struct {
	channel int
	a, b    int64 // the users of a private one, lower first; or the group and 0
}

func keyOf(channel int, from, to int64) convKey {
	if channel == imclient.Group {
		return convKey{imclient.Group, to, 0}
	}
	return convKey{imclient.Private, min(from, to), max(from, to)}
}

func (k convKey) String() string {
	if k.channel == imclient.Group {
		return "g:" + strconv.FormatInt(k.a, 10)
	}
	return fmt.Sprintf("p:%d:%d", k.a, k.b)
}

// canary is the text of a message: conversation, sender, client message id, a
// nonce and a code over them all.
func canary(seed uint64, key convKey, sender, clientID int64, nonce uint64) string {
	body := fmt.Sprintf("%s%s|%d|%d|%x", canaryMark, key, sender, clientID, nonce)
	return body + "|" + canaryCode(seed, body)
}

func canaryCode(seed uint64, body string) string {
	mac := hmac.New(sha256.New, binary.LittleEndian.AppendUint64(nil, seed))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// isCanary reports whether text was written by a checker, changed or not.
func isCanary(text string) bool { return strings.HasPrefix(text, canaryMark) }
