// Command logic stores conversations and tells the gateways what to push.
package main

import (
	"context"
	"flag"
	"os"
	"runtime/debug"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/logic"
	"im-services/internal/logic/migrations"
	"im-services/internal/platform/boot"
	"im-services/internal/platform/bus"
	"im-services/internal/platform/cache"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/platform/discovery"
	"im-services/internal/platform/rpc"
	"im-services/internal/platform/telemetry"
	"im-services/internal/push"
)

// callers may call what is listed, once they prove their names by certificates.
// Who are friends is friend's to say alone: a gateway that is broken into cannot
// open a conversation between two people.
var callers = rpc.Callers{
	"gateway": {
		"/logic.v1.MessageService/", "/logic.v1.ConnectionService/", "/logic.v1.GroupService/",
		logicv1.ConversationService_ListSessions_FullMethodName,
		logicv1.ConversationService_CreateSession_FullMethodName,
		logicv1.ConversationService_UpdateSession_FullMethodName,
		logicv1.ConversationService_DeleteSession_FullMethodName,
		logicv1.ConversationService_Presence_FullMethodName,
		logicv1.ConversationService_Notify_FullMethodName,
		logicv1.ConversationService_RegisterUpload_FullMethodName,
		logicv1.ConversationService_UploadUsage_FullMethodName,
	},
	"friend": {
		logicv1.ConversationService_SetPrivate_FullMethodName,
		logicv1.ConversationService_AllocateIDs_FullMethodName,
		logicv1.ConversationService_Notify_FullMethodName,
	},
}

func main() {
	var (
		path    = flag.String("config", "deploy/config/logic.yaml", "configuration `file`")
		migrate = flag.Bool("migrate", false, "bring the database to this version, and exit")
		health  = flag.Bool("health", false, "ask the running instance whether it is ready, and exit")
	)
	flag.Parse()
	boot.Main(func(ctx context.Context, b *boot.Boot) error {
		var cfg Config
		if err := config.Load(*path, &cfg); err != nil {
			return err
		}
		b.OneShot = *health || *migrate
		switch {
		case *health:
			return telemetry.Probe(ctx, cfg.Telemetry.DebugListen)
		case *migrate:
			return applyMigrations(ctx, cfg)
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
	return database.Migrate(ctx, db, migrations.FS, ".", migrations.Table)
}

// gcPercent lets the heap grow to five times what lives. What logic allocates is
// gone a few milliseconds later, and what lives (caches with a bound) is small:
// collecting at twice of it took a seventh of logic's time. GOGC overrides it.
const gcPercent = 400

func run(ctx context.Context, b *boot.Boot, cfg Config) error {
	if cfg.StopTimeout > 0 {
		b.StopTimeout = cfg.StopTimeout
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	instance := boot.InstanceID()
	tel, err := telemetry.New(cfg.Telemetry, "logic", instance)
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
	if err := database.CheckVersion(ctx, db, migrations.FS, ".", migrations.Table); err != nil {
		return err
	}
	tel.Registry.MustRegister(database.Collector(db, "logic"))
	batches, err := database.OpenBatches(ctx, cfg.Database)
	if err != nil {
		return err
	}
	b.OnClose("batches", func(context.Context) error { return batches.Close() })

	redis := cache.Open(cfg.Cache)
	b.OnClose("cache", func(context.Context) error { return redis.Close() })

	codec, err := push.NewCodec([]byte(cfg.Push.Key.Reveal()))
	if err != nil {
		return err
	}
	producer, err := bus.NewProducer(bus.ProducerConfig{
		Addrs: cfg.Bus.NSQD, PublishTimeout: cfg.Bus.PublishTimeout, AuthSecret: cfg.Bus.AuthSecret,
	}, tel.Log)
	if err != nil {
		return err
	}
	b.OnClose("bus", func(context.Context) error { return producer.Close() })

	registry, err := discovery.Open(cfg.Discovery, tel.Log)
	if err != nil {
		return err
	}
	b.OnClose("discovery", func(context.Context) error { return registry.Close() })

	server, err := logic.New(ctx, logic.Deps{
		DB: db, Batches: batches, Redis: redis, Bus: publisher{producer}, Topics: topics(cfg.Bus.NSQDHTTP), Gateways: watchGateways(registry),
		Codec: codec, Log: tel.Log, Registry: tel.Registry, Config: cfg.Logic,
	})
	if err != nil {
		return err
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Run(background) }()
	b.OnClose("logic", func(context.Context) error {
		server.Close()
		stop()
		<-done
		return nil
	})

	cfg.RPC.Callers = callers
	listener, err := rpc.NewServer(tel, cfg.RPC)
	if err != nil {
		return err
	}
	logicv1.RegisterMessageServiceServer(listener.GRPC(), server)
	logicv1.RegisterConnectionServiceServer(listener.GRPC(), server)
	logicv1.RegisterConversationServiceServer(listener.GRPC(), server)
	logicv1.RegisterGroupServiceServer(listener.GRPC(), server)
	pulse, err := database.NewPulse(ctx, cfg.Database, tel.Log)
	if err != nil {
		return err
	}
	b.Go("grpc", listener.Run)
	b.Go("pulse", func(ctx context.Context) error { return pulse.Run(ctx, listener.SetServing) })
	b.OnClose("streams", func(context.Context) error { server.Drain(); return nil })

	registration, err := registry.Register(ctx, "logic", instance, listener.Advertise(), nil)
	if err != nil {
		return err
	}
	b.OnClose("registration", registration.Deregister)
	b.OnClose("readiness", func(context.Context) error { tel.SetReady(false); return nil })
	tel.SetReady(true)
	return nil
}
