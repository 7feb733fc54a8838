// Command auth serves accounts, logins and everything that proves who users are.
package main

import (
	"context"
	"flag"
	"log/slog"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/auth"
	"im-services/internal/platform/boot"
	"im-services/internal/platform/cache"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/platform/discovery"
	"im-services/internal/platform/rpc"
	"im-services/internal/platform/telemetry"
)

// callers may call what is listed, once they prove their names by certificates.
var callers = rpc.Callers{"gateway": {"/auth.v1.AuthService/"}}

func main() {
	var (
		path    = flag.String("config", "deploy/config/auth.yaml", "configuration `file`")
		migrate = flag.Bool("migrate", false, "bring the database to this version, and exit")
		health  = flag.Bool("health", false, "ask the running instance whether it is ready, and exit")
		rotate  = flag.Bool("rotate-key", false, "add a signing key that signs in a minute, and exit; nobody is logged out")
		replace = flag.Bool("replace-keys", false, "replace all signing keys after a leak, and exit, some seconds later; every access token ends")
		ban     struct {
			who  string
			lift bool
		}
	)
	flag.StringVar(&ban.who, "ban", "", "end all logins of the `user` with this e-mail address or id and let him log in no more, and exit")
	flag.Func("unban", "let a banned `user` log in again, and exit", func(who string) error {
		ban.who, ban.lift = who, true
		return nil
	})
	flag.Parse()
	boot.Main(func(ctx context.Context, b *boot.Boot) error {
		var cfg Config
		if err := config.Load(*path, &cfg); err != nil {
			return err
		}
		b.OneShot = *health || *migrate || *rotate || *replace || ban.who != ""
		switch {
		case *health:
			return telemetry.Probe(ctx, cfg.Telemetry.DebugListen)
		case *migrate:
			return applyMigrations(ctx, cfg)
		case *rotate || *replace:
			return changeKeys(ctx, cfg, *replace)
		case ban.who != "":
			return changeBan(ctx, cfg, ban.who, ban.lift)
		}
		return run(ctx, b, cfg)
	})
}

func applyMigrations(ctx context.Context, cfg Config) error {
	db, err := database.Open(ctx, cfg.Database.ForMigration())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return database.Migrate(ctx, db, auth.Migrations, auth.MigrationsDir, auth.VersionTable)
}

func changeKeys(ctx context.Context, cfg Config, replace bool) error {
	db, err := database.Open(ctx, cfg.Database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var kid string
	if replace {
		kid, err = auth.ReplaceKeys(ctx, db)
	} else {
		kid, err = auth.RotateKey(ctx, db, cfg.Auth)
	}
	if err == nil {
		slog.InfoContext(ctx, "new signing key", "kid", kid)
	}
	return err
}

func changeBan(ctx context.Context, cfg Config, who string, lift bool) error {
	db, err := database.Open(ctx, cfg.Database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	change, done := auth.Ban, "banned: all login sessions ended"
	if lift {
		change, done = auth.Unban, "may log in again"
	}
	user, err := change(ctx, db, who)
	if err == nil {
		slog.InfoContext(ctx, done, "user_id", int64(user))
	}
	return err
}

func run(ctx context.Context, b *boot.Boot, cfg Config) error {
	if cfg.StopTimeout > 0 {
		b.StopTimeout = cfg.StopTimeout
	}
	instance := boot.InstanceID()
	tel, err := telemetry.New(cfg.Telemetry, "auth", instance)
	if err != nil {
		return err
	}
	b.SetLog(tel.Log)
	b.OnClose("telemetry", tel.Close)

	db, err := database.Open(ctx, cfg.Database)
	if err != nil {
		return err
	}
	b.OnClose("database", func(context.Context) error { return db.Close() })
	if err := database.CheckVersion(ctx, db, auth.Migrations, auth.MigrationsDir, auth.VersionTable); err != nil {
		return err
	}
	tel.Registry.MustRegister(database.Collector(db, "auth"))

	redis := cache.Open(cfg.Cache)
	b.OnClose("cache", func(context.Context) error { return redis.Close() })

	registry, err := discovery.Open(cfg.Discovery, tel.Log)
	if err != nil {
		return err
	}
	b.OnClose("discovery", func(context.Context) error { return registry.Close() })

	server, err := auth.New(ctx, cfg.service(), db, redis, tel.Log, tel.Registry)
	if err != nil {
		return err
	}
	b.Go("auth", server.Run)

	cfg.RPC.Callers = callers
	listener, err := rpc.NewServer(tel, cfg.RPC)
	if err != nil {
		return err
	}
	authv1.RegisterAuthServiceServer(listener.GRPC(), server)
	pulse, err := database.NewPulse(ctx, cfg.Database, tel.Log)
	if err != nil {
		return err
	}
	b.Go("grpc", listener.Run)
	b.Go("pulse", func(ctx context.Context) error { return pulse.Run(ctx, listener.SetServing) })

	registration, err := registry.Register(ctx, "auth", instance, listener.Advertise(), nil)
	if err != nil {
		return err
	}
	b.OnClose("registration", registration.Deregister)
	b.OnClose("readiness", func(context.Context) error { tel.SetReady(false); return nil })
	tel.SetReady(true)
	return nil
}
