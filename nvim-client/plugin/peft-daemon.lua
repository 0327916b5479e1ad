-- Loaded by Neovim at its start: defines keys and commands, and sets the plugin up where the user does not.

if vim.g.loaded_peft_daemon then
  return
end
vim.g.loaded_peft_daemon = true

local function call(name, ...)
  local arguments = { ... }
  return function()
    require("peft-daemon")[name](unpack(arguments))
  end
end

local function plug(modes, name, action, description)
  vim.keymap.set(modes, "<Plug>(peft-daemon-" .. name .. ")", action, { desc = "peft-daemon: " .. description })
end

plug("i", "accept", call("accept", "all"), "accept the suggestion")
plug("i", "accept-word", call("accept", "word"), "accept its next word")
plug("i", "accept-line", call("accept", "line"), "accept its next line")
plug("i", "dismiss", call("dismiss"), "refuse the suggestion")
plug("i", "next", call("next"), "show the next alternative")
plug("i", "suggest", call("suggest"), "suggest now")
plug({ "n", "i" }, "next-edit", call("next_edit"), "go to the next edit, or apply it")
plug({ "n", "i" }, "dismiss-next-edit", call("dismiss_next_edit"), "refuse the next edit")
plug({ "n", "i" }, "toggle", call("toggle"), "suggestions on or off")
plug({ "n", "i" }, "generate", call("generate"), "generate code from this comment")

local command = vim.api.nvim_create_user_command
command("PeftDaemonWhy", call("why"), { desc = "Why there was a suggestion, or none" })
command("PeftDaemonToggle", call("toggle"), { desc = "Suggestions on or off" })
command("PeftDaemonGenerate", call("generate"), { desc = "Generate code from the comment at the cursor" })
command("PeftDaemonRestart", call("restart"), { desc = "Restart the daemon" })

-- After the user's own configuration, which may call setup() first.
if vim.v.vim_did_enter == 1 then
  vim.schedule(call("setup_by_default"))
else
  vim.api.nvim_create_autocmd("VimEnter", { once = true, callback = call("setup_by_default") })
end
