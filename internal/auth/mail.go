package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/wneessen/go-mail"

	"im-services/internal/im"
)

// mailer delivers codes. An error means that nothing may have arrived; it holds
// no code and no address.
type mailer interface {
	sendCode(ctx context.Context, to, purpose, code string, ttl time.Duration) error
}

func newMailer(cfg MailConfig, log *slog.Logger) (mailer, error) {
	if cfg.Driver == "log" {
		return logMailer{log}, nil
	}
	return newSMTPMailer(cfg.SMTP)
}

// logMailer writes codes to the log, for machines without a mail server.
type logMailer struct{ log *slog.Logger }

func (m logMailer) sendCode(ctx context.Context, to, purpose, code string, _ time.Duration) error {
	m.log.LogAttrs(ctx, slog.LevelInfo, "e-mail code (driver log)",
		slog.String("to", to), slog.String("purpose", purpose), slog.String("code", code))
	return nil
}

// smtpMailer hands codes to a mail server, a connection each. Safe for
// concurrent use.
type smtpMailer struct {
	cfg   SMTPConfig
	slots chan struct{}
}

func newSMTPMailer(cfg SMTPConfig) (*smtpMailer, error) {
	m := &smtpMailer{cfg: cfg, slots: make(chan struct{}, cfg.Concurrent)}
	if _, err := m.client(context.Background()); err != nil {
		return nil, fmt.Errorf("auth: mail.smtp: %w", err)
	}
	return m, nil
}

// client makes a client whose connections end with ctx: the library looks at a
// context while dialling only, and leaves a connection open that fails before
// mail is exchanged. (With security tls it dials by itself, and the connection
// is left to its deadline.)
func (m *smtpMailer) client(ctx context.Context) (*mail.Client, error) {
	opts := []mail.Option{mail.WithPort(m.cfg.Port), mail.WithTimeout(m.cfg.Timeout), mail.WithoutNoop()}
	dial := func(dialCtx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(dialCtx, network, addr)
		if err == nil {
			context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	}
	switch m.cfg.Security {
	case "tls":
		opts = append(opts, mail.WithSSL())
	case "none":
		opts = append(opts, mail.WithTLSPolicy(mail.NoTLS), mail.WithDialContextFunc(dial))
	default:
		opts = append(opts, mail.WithTLSPolicy(mail.TLSMandatory), mail.WithDialContextFunc(dial))
	}
	if m.cfg.Username != "" {
		opts = append(opts, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover),
			mail.WithUsername(m.cfg.Username), mail.WithPassword(m.cfg.Password))
	}
	return mail.NewClient(m.cfg.Host, opts...)
}

var codeSubjects = map[string]string{
	"register": "注册验证码 / Your registration code",
	"reset":    "重置密码验证码 / Your password reset code",
}

func (m *smtpMailer) sendCode(ctx context.Context, to, purpose, code string, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return mailNotSent(ctx.Err())
	}
	msg := mail.NewMsg()
	if err := errors.Join(msg.From(m.cfg.From), msg.To(to)); err != nil {
		return mailNotSent(errors.New("address refused"))
	}
	msg.Subject(codeSubjects[purpose])
	minutes := int(ttl.Round(time.Minute) / time.Minute)
	msg.SetBodyString(mail.TypeTextPlain, fmt.Sprintf(
		"您的验证码是 %[1]s，%[2]d 分钟内有效。如果不是您本人操作，请忽略这封邮件。\r\n\r\n"+
			"Your code is %[1]s. It is valid for %[2]d minutes. If you did not ask for it, ignore this mail.\r\n", code, minutes))
	c, err := m.client(ctx)
	if err != nil {
		return mailNotSent(err)
	}
	// A server that has taken the mail may still fail at what comes after it.
	if err := c.DialAndSendWithContext(ctx, msg); err != nil && !msg.IsDelivered() {
		return mailNotSent(err)
	}
	return nil
}

func mailNotSent(cause error) error { return im.E(im.KindUnavailable, "mail_not_sent", cause) }
