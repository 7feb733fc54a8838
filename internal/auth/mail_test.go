package auth

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"log/slog"
	"mime/quotedprintable"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/im"
)

// smtpServer speaks just enough SMTP. greet "" never answers.
type smtpServer struct {
	ln    net.Listener
	greet string
	rcpt  string // answer to RCPT TO
	curt  bool   // hangs up when it has taken a mail
	mu    sync.Mutex
	mails []string
	wg    sync.WaitGroup
}

func newSMTPServer(t *testing.T, greet, rcpt string, change ...func(*smtpServer)) *smtpServer {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &smtpServer{ln: ln, greet: greet, rcpt: rcpt}
	for _, f := range change {
		f(s)
	}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); s.wg.Wait() })
	return s
}

func (s *smtpServer) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	if s.greet == "" {
		_, _ = io.Copy(io.Discard, r)
		return
	}
	say := func(line string) { _, _ = io.WriteString(c, line+"\r\n") }
	say(s.greet)
	var envelope []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " "); verb {
		case "EHLO", "HELO":
			say("250 test")
		case "RCPT":
			envelope = append(envelope, strings.TrimSpace(line))
			say(s.rcpt)
		case "DATA":
			say("354 go on")
			var body strings.Builder
			for {
				l, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				body.WriteString(l)
			}
			s.mu.Lock()
			s.mails = append(s.mails, strings.Join(envelope, "\n")+"\n"+body.String())
			s.mu.Unlock()
			say("250 kept")
			if s.curt {
				return
			}
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 fine")
		}
	}
}

func (s *smtpServer) mailer(t *testing.T) mailer {
	t.Helper()
	return s.mailerWithin(t, time.Second)
}

func (s *smtpServer) mailerWithin(t *testing.T, limit time.Duration) mailer {
	t.Helper()
	host, port, err := net.SplitHostPort(s.ln.Addr().String())
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	cfg := testConfig().WithDefaults().Mail
	cfg.SMTP.Host, cfg.SMTP.Port, cfg.SMTP.Security, cfg.SMTP.Timeout = host, n, "none", limit
	m, err := newMailer(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return m
}

func TestSMTP_SendsTheCode(t *testing.T) {
	s := newSMTPServer(t, "220 hello", "250 fine")
	require.NoError(t, s.mailer(t).sendCode(t.Context(), "abc@example.com", "register", "0427", 5*time.Minute))
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Len(t, s.mails, 1)
	head, body, ok := strings.Cut(s.mails[0], "\r\n\r\n")
	require.True(t, ok)
	require.Contains(t, head, "RCPT TO:<abc@example.com>")
	require.Contains(t, head, "From: <im@example.com>")
	require.NotContains(t, head, "0427", "not in the subject, which shows on lock screens")
	var text []byte
	var err error
	if strings.Contains(strings.ToLower(head), "base64") {
		text, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(body), ""))
	} else {
		text, err = io.ReadAll(quotedprintable.NewReader(strings.NewReader(body)))
	}
	require.NoError(t, err)
	require.Contains(t, string(text), "您的验证码是 0427，5 分钟内有效")
	require.Contains(t, string(text), "Your code is 0427. It is valid for 5 minutes.")
}

// The mail is there: whoever hears that it is not asks again, and types the wrong one.
func TestSMTP_WhatIsTakenIsSentWhateverFollows(t *testing.T) {
	s := newSMTPServer(t, "220 hello", "250 fine", func(s *smtpServer) { s.curt = true })
	require.NoError(t, s.mailer(t).sendCode(t.Context(), "abc@example.com", "register", "0427", 5*time.Minute))
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Len(t, s.mails, 1)
}

func TestSMTP_Trouble(t *testing.T) {
	silent := newSMTPServer(t, "", "")
	closed := newSMTPServer(t, "220 hello", "250 fine")
	_ = closed.ln.Close()
	for name, s := range map[string]*smtpServer{
		"silent server": silent, "no server": closed,
		"unwilling server":  newSMTPServer(t, "554 go away", ""),
		"unknown recipient": newSMTPServer(t, "220 hello", "550 no such user 0427"),
	} {
		start := time.Now()
		err := s.mailer(t).sendCode(t.Context(), "abc@example.com", "reset", "0427", 5*time.Minute)
		requireReason(t, "mail_not_sent", err, name)
		require.Equal(t, im.KindUnavailable, im.KindOf(err))
		require.Less(t, time.Since(start), 5*time.Second, name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	requireReason(t, "mail_not_sent", silent.mailerWithin(t, time.Minute).sendCode(ctx, "abc@example.com", "reset", "0427", time.Minute))
	require.Less(t, time.Since(start), 5*time.Second, "the caller's deadline counts")
}

func TestSMTP_StartTLSIsDemandedByDefault(t *testing.T) {
	s := newSMTPServer(t, "220 hello", "250 fine")
	m, ok := s.mailer(t).(*smtpMailer)
	require.True(t, ok)
	m.cfg.Security = "starttls"
	requireReason(t, "mail_not_sent", m.sendCode(t.Context(), "abc@example.com", "reset", "0427", time.Minute))
	require.Empty(t, s.mails)
}

func TestLogMailer_ShowsTheCode(t *testing.T) {
	var b buffer
	m, err := newMailer(MailConfig{Driver: "log"}, slog.New(slog.NewTextHandler(&b, nil)))
	require.NoError(t, err)
	require.NoError(t, m.sendCode(t.Context(), "abc@example.com", "register", "0427", time.Minute))
	require.Contains(t, b.String(), "code=0427")
	require.Error(t, Config{Mail: MailConfig{Driver: "log"}}.Validate(), "never in release mode")
}
