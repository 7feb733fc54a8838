// Package push is the contract between logic and the gateways on the bus: how a
// gateway's topic is named, and how an envelope is sealed into a message body.
//
// A body becomes frames that users read, so it is authenticated: whoever can
// publish on the bus but does not hold the key cannot speak to a client.
package push

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

const (
	topicPrefix = "push."
	topicSuffix = "#ephemeral"
	macSize     = sha256.Size
	// MinKeySize is the least number of bytes a codec key may have.
	MinKeySize = 32
)

// ErrForged is returned for a body that was not sealed with this codec's key.
var ErrForged = errors.New("push: envelope is not authentic")

// Topic returns the bus topic of one gateway incarnation. It is ephemeral: what
// it carries are hints, worthless once the gateway is gone.
func Topic(gateway im.GatewayID) string {
	return topicPrefix + string(gateway) + topicSuffix
}

// GatewayOf returns the incarnation a topic belongs to, false if the topic is
// not one of ours.
func GatewayOf(topic string) (im.GatewayID, bool) {
	id, ok := strings.CutPrefix(topic, topicPrefix)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, topicSuffix)
	return im.GatewayID(id), ok && id != ""
}

// Codec seals and opens envelopes. It is safe for concurrent use.
type Codec struct {
	key []byte
}

// NewCodec returns a codec for a shared key of at least MinKeySize bytes.
func NewCodec(key []byte) (*Codec, error) {
	if len(key) < MinKeySize {
		return nil, fmt.Errorf("push: key has %d bytes, at least %d are needed: set push.key (IM_PUSH_KEY)", len(key), MinKeySize)
	}
	return &Codec{key: append([]byte(nil), key...)}, nil
}

// Marshal seals an envelope: a MAC followed by the encoded envelope.
func (c *Codec) Marshal(e *pushv1.Envelope) ([]byte, error) {
	size := proto.Size(e)
	body := make([]byte, macSize, macSize+size)
	body, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(body, e)
	if err != nil {
		return nil, fmt.Errorf("push: encode envelope: %w", err)
	}
	mac := hmac.New(sha256.New, c.key)
	mac.Write(body[macSize:])
	mac.Sum(body[:0])
	return body, nil
}

// Unmarshal opens a body: ErrForged if the MAC does not fit, another error if
// the envelope inside is malformed.
func (c *Codec) Unmarshal(body []byte) (*pushv1.Envelope, error) {
	if len(body) < macSize {
		return nil, ErrForged
	}
	mac := hmac.New(sha256.New, c.key)
	mac.Write(body[macSize:])
	if !hmac.Equal(mac.Sum(nil), body[:macSize]) {
		return nil, ErrForged
	}
	e := new(pushv1.Envelope)
	if err := proto.Unmarshal(body[macSize:], e); err != nil {
		return nil, fmt.Errorf("push: decode envelope: %w", err)
	}
	return e, nil
}
